"""What each command prints when all is well, for people and for programs."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from sparkd.api.ports import ReloadOutcome
from sparkd.cli.main import COMMANDS, app
from sparkd.core.catalogue import Catalogue, ModelId
from sparkd.core.instance import Reason, State
from sparkd.core.quantities import Instant
from sparkd.errors import Problem
from tests.api.fakes import GEMMA, NOW, QWEN, empty_fleet, instance


async def test_status_is_a_table_and_a_line_for_the_pool(sparkctl):
    ended = await sparkctl("status")
    lines = ended.out.splitlines()
    assert (ended.code, ended.err) == (0, "")
    assert lines[0].split() == ["MODEL", "STATE", "SINCE", "BUDGET", "IN-FLIGHT", "NOTE"]
    assert lines[1].split() == ["qwen3-8b", "ready", "12min", "24GiB", "2"]
    assert lines[2].split(maxsplit=5) == [
        "gemma", "starting", "12s", "40GiB", "0", "loading weights 40%, 2 waiting",
    ]  # fmt: skip
    assert lines[3].split(maxsplit=5) == [
        "broken", "failed", "–", "–", "–",
        "failed: no such flag: --foo (bad_flag, 3 in a row, next try in 25s)",
    ]  # fmt: skip
    assert "pool: 64GiB of 110GiB charged, 46GiB headroom, 50GiB available" in lines
    assert lines[-1].startswith("sparkd 9.8.7, pid ")


async def test_status_names_a_model_that_only_waits(sparkctl, daemon):
    fleet = daemon.operations.fleet
    others = {key: i for key, i in fleet.instances.items() if i.model != GEMMA.id}
    daemon.operations.fleet = replace(fleet, instances=others)
    ended = await sparkctl("status")
    assert ["gemma", "queued", "12s", "–", "–", "2", "waiting"] in [
        line.split() for line in ended.out.splitlines()
    ]


async def test_status_says_why_a_model_goes(sparkctl, daemon):
    draining = replace(
        instance(QWEN, State.DRAINING, started=90, ready=80),
        reason=Reason.IDLE,
        idle_since=Instant(NOW - 61),
    )
    daemon.operations.fleet = replace(empty_fleet(), instances={draining.id: draining})
    assert "draining  1min   24GiB   0          idle, idle 1min" in (await sparkctl("status")).out


async def test_status_of_an_idle_daemon_is_no_empty_table(sparkctl, daemon):
    daemon.operations.fleet = empty_fleet()
    ended = await sparkctl("status")
    assert ended.out.startswith("no model is loaded\n")
    assert "MODEL" not in ended.out


async def test_models_lists_the_catalogue(sparkctl):
    lines = (await sparkctl("models")).out.splitlines()
    assert lines[1].split() == [
        "qwen3-8b", "ready", "normal", "24GiB", "4096",
        "Qwen/Qwen3-8B", "small", "a", "small", "one",
    ]  # fmt: skip
    assert [line.split()[1] for line in lines[1:]] == ["ready", "starting", "failed", "cold"]


async def test_a_pipe_gets_no_folding_no_colour_and_no_trailing_blanks(sparkctl, daemon):
    long = replace(QWEN, description="words " * 60)
    daemon.operations.fleet = replace(empty_fleet(), catalogue=Catalogue((long,)))
    ended = await sparkctl("models", COLUMNS="40")
    assert len(ended.out.splitlines()) == 2
    assert "\x1b" not in ended.out
    assert all(line == line.rstrip() for line in ended.out.splitlines())


async def test_load_waits_and_says_that_the_model_is_ready(sparkctl, daemon):
    daemon.operations.finish.set()
    ended = await sparkctl("load", "cold-one")
    assert (ended.code, ended.out) == (0, "cold-one is ready\n")
    assert ended.err == "", "progress is for terminals"
    assert daemon.operations.calls == [("load", "cold-one", True)]


async def test_load_without_waiting_says_what_the_model_is_now(sparkctl, daemon):
    ended = await sparkctl("load", "gemma", "--no-wait")
    assert (ended.code, ended.out) == (0, "gemma is starting\n")
    assert daemon.operations.calls == [("load", "gemma", False)]


async def test_an_alias_with_a_slash_names_the_model(sparkctl, daemon):
    daemon.operations.finish.set()
    ended = await sparkctl("load", "Qwen/Qwen3-8B")
    assert (ended.code, ended.out) == (0, "qwen3-8b is ready\n")


@pytest.mark.parametrize(
    ("args", "call"),
    [
        ((), ("unload", "qwen3-8b", False, True)),
        (("--now",), ("unload", "qwen3-8b", True, True)),
        (("--now", "--no-wait"), ("unload", "qwen3-8b", True, False)),
    ],
)
async def test_unload_passes_its_switches_on(sparkctl, daemon, args, call):
    daemon.operations.finish.set()
    ended = await sparkctl("unload", "small", *args)
    assert ended.code == 0
    assert daemon.operations.calls == [call]
    assert ended.out == f"qwen3-8b is {'unloaded' if call[-1] else 'draining'}\n"


async def test_unloading_what_is_not_loaded_is_said_and_is_no_failure(sparkctl, daemon):
    daemon.operations.is_loaded = False
    daemon.operations.finish.set()
    ended = await sparkctl("unload", "cold-one")
    assert (ended.code, ended.out) == (0, "cold-one was not loaded\n")


async def test_logs_shows_the_last_lines(sparkctl):
    ended = await sparkctl("logs", "small", "-n", "2")
    assert (ended.code, ended.out) == (0, "line 4\nline 5\n")


async def test_logs_keep_carriage_returns_and_foreign_letters_in_a_pipe(sparkctl, daemon):
    daemon.logs.lines = ["10%\r20%", "日本 naïve"]
    async with sparkctl.running("logs", "small") as process:
        out, _ = await process.communicate()
    assert out.decode() == "10%\r20%\n日本 naïve\n"


async def test_a_long_log_arrives_whole(sparkctl, daemon):
    daemon.logs.lines = [f"{n} " + "x" * 500 for n in range(3000)]
    ended = await sparkctl("logs", "small", "-n", "10000")
    assert ended.out.splitlines() == daemon.logs.lines


async def test_a_reader_that_has_enough_ends_the_logs_quietly(sparkctl, daemon):
    daemon.logs.lines = [f"{n} " + "x" * 500 for n in range(3000)]
    read, write = os.pipe()
    async with sparkctl.running("logs", "small", "-n", "10000", stdout=write) as process:
        os.close(write)
        assert await asyncio.to_thread(os.read, read, 2) == b"0 "
        os.close(read)
        _, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")


async def test_reload_says_what_changed_and_warns_on_stderr(sparkctl, daemon):
    daemon.configuration.outcome = ReloadOutcome(
        changed=(ModelId("a"), ModelId("b")),
        removed=(ModelId("c"),),
        warnings=(Problem(where="d.toml: x", message="is old", hint="use y"),),
    )
    ended = await sparkctl("reload")
    assert (ended.code, ended.out) == (0, "changed: a, b; removed: c\n")
    assert ended.err == "warning: d.toml: x: is old  (hint: use y)\n"


async def test_a_reload_that_changes_nothing_says_so(sparkctl):
    assert (await sparkctl("reload")).out == "nothing changed\n"


@pytest.mark.parametrize(
    ("args", "key"),
    [
        (("status",), "pool"),
        (("models",), "models"),
        (("load", "gemma"), "state"),
        (("unload", "gemma"), "unloaded"),
        (("logs", "gemma"), "lines"),
        (("reload",), "changed"),
    ],
)
@pytest.mark.parametrize("before", [True, False], ids=["before", "behind"])
async def test_every_command_prints_json_wherever_the_flag_stands(
    sparkctl, daemon, args, key, before
):
    daemon.operations.finish.set()
    ended = await sparkctl(*(("--json", *args) if before else (*args, "--json")))
    assert (ended.code, ended.err) == (0, "")
    assert key in ended.json


def test_no_command_was_forgotten_in_the_json_test():
    assert set(COMMANDS) == {"status", "models", "load", "unload", "logs", "reload"}


async def test_followed_logs_as_json_are_one_object_per_line(sparkctl, daemon):
    async with sparkctl.running("logs", "small", "-f", "-n", "1", "--json") as process:
        daemon.logs.say('say "hi"')
        assert json.loads(await process.stdout.readline())["line"] in ("line 5", 'say "hi"')


async def test_the_socket_is_an_option_too(sparkctl, daemon):
    ended = await sparkctl("--socket", daemon.path, "status", SPARKD_SOCKET="/nowhere")
    assert ended.code == 0


async def test_the_version_needs_no_daemon(sparkctl):
    ended = await sparkctl("--version", SPARKD_SOCKET="/nowhere")
    assert (ended.code, ended.out.split()[0]) == (0, "sparkctl")


async def test_the_commands_run_inside_typers_own_runner(daemon):
    result = await asyncio.to_thread(
        CliRunner().invoke, app, ["--socket", daemon.path, "status", "--json"]
    )
    assert result.exit_code == 0
    assert json.loads(result.stdout)["version"] == "9.8.7"
