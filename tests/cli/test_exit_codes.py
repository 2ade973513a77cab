"""Every way to fail: its exit code, its sentence, its hint, and its JSON."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sparkd.api.access import Administrators
from sparkd.errors import (
    BackingOffError,
    ConfigError,
    ModelUnavailableError,
    Problem,
    StartFailedError,
)
from tests.api.fakes import FakeDaemon
from tests.cli.conftest import Sparkctl, as_nobody

ALL_COMMANDS = [
    ("status",),
    ("models",),
    ("load", "gemma"),
    ("unload", "gemma"),
    ("logs", "gemma"),
    ("logs", "gemma", "-f"),
    ("reload",),
]


# 1: the daemon refused, or the action failed ----------------------------------------------------


async def test_a_failed_start_is_1_with_the_engines_last_lines(sparkctl, daemon):
    daemon.operations.failure = StartFailedError(
        "cannot start model 'gemma': no such flag (bad_flag, exit status 2)",
        cause="bad_flag",
        log_tail=("usage: vllm", "error: --foo \x1b[31m(red)\x1b[0m"),
        hint="sparkctl logs gemma",
    )
    ended = await sparkctl("load", "gemma")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.splitlines() == [
        "sparkctl: cannot start model 'gemma': no such flag (bad_flag, exit status 2)",
        "the engine's last lines:",
        "  usage: vllm",
        "  error: --foo (red)",
        "hint: sparkctl logs gemma",
    ]


async def test_a_refusal_as_json_has_the_daemons_own_object(sparkctl, daemon):
    daemon.operations.failure = ModelUnavailableError("cannot load: no weights", hint="pull them")
    ended = await sparkctl("load", "gemma", "--json")
    assert (ended.code, ended.error["code"]) == (1, "model_not_available")
    assert ended.error["hint"] == "pull them"
    assert ended.err == "sparkctl: cannot load: no weights\nhint: pull them\n"


async def test_a_refusal_that_knows_when_to_try_again_says_so(sparkctl, daemon):
    daemon.operations.failure = BackingOffError("cannot start 'gemma' again yet", retry_after=29.2)
    ended = await sparkctl("load", "gemma")
    assert (ended.code, ended.err.splitlines()[1]) == (1, "hint: try again in 30s")


async def test_a_bad_configuration_is_1_with_every_problem_and_its_hint(sparkctl, daemon):
    daemon.configuration.failure = ConfigError(
        [
            Problem(where="a.toml: x", message="unknown key", hint="did you mean 'y'?"),
            Problem(where="b.toml: z", message="no unit", hint="write '20min'"),
        ]
    )
    ended = await sparkctl("reload")
    assert ended.code == 1
    assert "2 problems" in ended.err
    assert "a.toml: x: unknown key  (hint: did you mean 'y'?)" in ended.err
    assert "b.toml: z: no unit  (hint: write '20min')" in ended.err


async def test_someone_who_may_not_is_told_how_he_could():
    daemon = FakeDaemon()
    async with daemon.served(Administrators(own_uid=os.geteuid() + 1, group=None)) as path:
        ended = await as_nobody(path)("load", "gemma")
    assert (ended.code, daemon.operations.calls) == (1, [])
    assert "administer" in ended.err
    assert "hint: use sudo, or join the group 'sparkd'" in ended.err


# 2: usage -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args",
    [
        ("load",),
        ("load", "a", "b"),
        ("lode", "a"),
        ("status", "--colour"),
        ("logs", "a", "-n", "many"),
        ("logs", "a", "-n", "-1"),
        ("logs", "a", "-n", "10001"),
    ],
)
async def test_a_wrong_command_line_is_2_and_asks_nobody(sparkctl, daemon, args):
    ended = await sparkctl(*args)
    assert (ended.code, ended.out) == (2, "")
    assert "Usage: sparkctl" in ended.err
    assert daemon.operations.calls == []


# 3: the daemon cannot be reached ------------------------------------------------------------------


@pytest.mark.parametrize("args", ALL_COMMANDS)
async def test_a_missing_socket_is_3_for_every_command(directory, args):
    ended = await Sparkctl(f"{directory}/none")(*args)
    assert (ended.code, ended.out) == (3, "")
    assert "there is no such socket" in ended.err
    assert "systemctl start sparkd" in ended.err


async def test_a_socket_without_a_listener_is_3(directory):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(f"{directory}/s")
    ended = await Sparkctl(f"{directory}/s")("status")
    assert ended.code == 3
    assert "nobody listens on the socket" in ended.err


async def test_a_socket_that_one_may_not_open_is_3(directory):
    with socket.socket(socket.AF_UNIX) as private:
        private.bind(f"{directory}/s")
        private.listen()
        await asyncio.to_thread(Path(f"{directory}/s").chmod, 0)
        ended = await as_nobody(f"{directory}/s")("status")
    assert ended.code == 3
    assert "permission denied" in ended.err
    assert "hint: use sudo, or join the group 'sparkd'" in ended.err


async def test_a_socket_path_that_is_too_long_is_3(directory):
    assert (await Sparkctl(f"{directory}/{'x' * 200}")("status")).code == 3


async def test_unreachable_as_json_is_an_error_object_too(directory):
    ended = await Sparkctl(f"{directory}/none")("--json", "status")
    assert (ended.code, ended.error["code"]) == (3, "daemon_unreachable")
    assert str(ended.error["message"]) in ended.err


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\n{}",
    ],
    ids=["closed", "cut", "ssh", "not-json", "list", "no-error"],
)
async def test_an_answer_that_is_none_is_3_and_a_sentence(directory, answer):
    async with _answering(f"{directory}/s", answer):
        ended = await Sparkctl(f"{directory}/s")("status")
    assert (ended.code, ended.out) == (3, "")
    assert ended.err.startswith("sparkctl: cannot ")
    assert "Traceback" not in ended.err


async def test_a_daemon_that_dies_while_one_follows_is_3(sparkctl, daemon):
    async with sparkctl.running("logs", "small", "-f", "-n", "1") as process:
        assert await process.stdout.readline() == b"line 5\n"
        await daemon.die()
        _, err = await process.communicate()
    assert process.returncode == 3
    assert b"closed the connection in mid-answer" in err
    assert b"journalctl -u sparkd" in err


async def test_a_daemon_that_dies_while_one_waits_is_3(sparkctl, daemon):
    async with sparkctl.running("load", "gemma") as process:
        await daemon.operations.asked.wait()
        await daemon.die()
        _, err = await process.communicate()
    assert process.returncode == 3
    assert b"closed the connection" in err


# 4: unknown model ---------------------------------------------------------------------------------


@pytest.mark.parametrize("args", [("load",), ("unload",), ("logs",), ("logs", "-f")])
async def test_an_unknown_model_is_4_and_the_nearest_is_named(sparkctl, args):
    ended = await sparkctl(*args, "gema")
    assert (ended.code, ended.out) == (4, "")
    assert ended.err.splitlines() == [
        "sparkctl: cannot find model 'gema' in the catalogue",
        "hint: did you mean 'gemma'?",
    ]


async def test_an_unknown_model_as_json(sparkctl):
    ended = await sparkctl("load", "gema", "--json")
    assert (ended.code, ended.error["code"]) == (4, "model_not_found")


# 130: Ctrl-C --------------------------------------------------------------------------------------


async def test_ctrl_c_while_loading_is_130_and_says_how_to_stop_the_load(sparkctl, daemon):
    async with sparkctl.running("load", "gemma") as process:
        await daemon.operations.asked.wait()
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()
    assert (process.returncode, out) == (130, b"")
    assert err.decode().splitlines() == [
        "sparkctl: no longer waiting: 'gemma' goes on loading",
        "hint: stop it with: sparkctl unload gemma --now",
    ]
    await daemon.operations.abandoned.wait()


async def test_ctrl_c_as_json(sparkctl, daemon):
    async with sparkctl.running("unload", "gemma", "--json") as process:
        await daemon.operations.asked.wait()
        process.send_signal(signal.SIGINT)
        out, _ = await process.communicate()
    assert process.returncode == 130
    assert b'"code": "interrupted"' in out


async def test_ctrl_c_is_how_one_stops_following_and_no_failure(sparkctl, daemon):
    async with sparkctl.running("logs", "small", "-f", "-n", "1") as process:
        assert await process.stdout.readline() == b"line 5\n"
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()
    assert (process.returncode, out, err) == (0, b"", b"")
    await daemon.logs.wait_followers(0)


async def test_ctrl_c_before_an_answer_is_130(directory):
    silent = asyncio.Event()
    path = f"{directory}/s"
    async with (
        _answering(path, b"", connected=silent, hold=True),
        Sparkctl(path).running("status") as process,
    ):
        await silent.wait()
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    assert (process.returncode, err) == (130, b"sparkctl: interrupted\n")


@asynccontextmanager
async def _answering(
    path: str, answer: bytes, *, connected: asyncio.Event | None = None, hold: bool = False
) -> AsyncIterator[None]:
    """Something on the socket that is not sparkd. `hold`: it never closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if connected is not None:
            connected.set()
        writer.write(answer)
        if hold:
            await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(serve, path):
        yield
