"""What every launcher promises about an engine's life: nothing is missed, nothing survives it."""
# ruff: noqa: ASYNC230, ASYNC240  /proc and sockets are in memory, and a test may block its loop

from __future__ import annotations

import asyncio
import mmap
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from sparkd.core.instance import InstanceId
from sparkd.core.quantities import Seconds
from sparkd.errors import HostError
from sparkd.host.logs import LogStore
from sparkd.host.processes import ProcessLauncher
from tests.host.kit import (
    Bench,
    eventually,
    fake_model,
    journal,
    left_in_shared_memory,
    open_files,
    so_many_descriptors,
    titled,
    with_command,
)

IGNORED = ("--fake-ignore-sigterm",)


async def gone(engine, seconds: float = 5.0) -> float:
    """Waits until nothing is left; returns how long that took."""
    before = time.monotonic()
    async with asyncio.timeout(seconds):
        await engine.wait_gone()
    return time.monotonic() - before


async def core_of(bench: Bench) -> int:
    await eventually(lambda: titled(bench.run_dir, "VLLM::EngineCore"))
    return titled(bench.run_dir, "VLLM::EngineCore")[0]


async def test_an_engine_becomes_ready_and_a_stop_leaves_nothing(bench: Bench):
    engine = await bench.ready(fake_model("tiny", "--fake-shm", "--fake-workers", "2"))
    core = await core_of(bench)
    assert len(left_in_shared_memory([core])) == 2
    engine.stop(Seconds(5))
    exit_ = await engine.wait_lost()
    assert (exit_.exit_status, exit_.signal) == (0, None)
    assert await gone(engine) < 2
    assert left_in_shared_memory([core]) == []
    assert bench.alive() == []
    assert bench.instances() == []


async def test_start_returns_when_the_process_exists(bench: Bench):
    engine = await bench.start(fake_model("tiny", "--fake-start-seconds", "30"))
    assert engine.main_pid in bench.alive()


async def test_an_exit_status_0_that_nobody_asked_for_is_reported_as_it_is(bench: Bench):
    engine = await bench.start(fake_model("tiny", "--fake-exit-after", "0"))
    exit_ = await engine.wait_lost()
    assert (exit_.exit_status, exit_.signal, exit_.note) == (0, None, "")
    await gone(engine)


async def test_a_failing_start_is_known_within_100_ms_with_its_last_words(bench: Bench, tmp_path):
    mark = tmp_path / "journal"
    model = fake_model(
        "tiny", "--fake-die-in-start", "ValueError: no\\nRuntimeError: see above",
        "--fake-exit-status", "3", "--fake-journal", str(mark),
    )  # fmt: skip
    engine = await bench.start(model)
    exit_ = await engine.wait_lost()
    heard = time.time()
    assert exit_.exit_status == 3
    assert engine.log_tail()[-2:] == ("ValueError: no", "RuntimeError: see above")
    assert engine.log_tail() == tuple(bench.lines)
    (said,) = [entry for entry in journal(mark) if entry["event"] == "exit"]
    assert heard - said["at"] < 0.1
    await gone(engine)


@pytest.mark.parametrize("state", ["starting", "ready"])
@pytest.mark.parametrize("victim", ["main", "EngineCore", "shim"])
async def test_nothing_survives_kill_9_of_any_process(bench: Bench, victim: str, state: str):
    args = ("--fake-shm", "--fake-workers", "1", "--fake-detach", "2", *IGNORED)
    if state == "starting":
        # EngineCore exists, the server does not answer yet.
        engine = await bench.start(fake_model("tiny", "--fake-never-ready", *args))
    else:
        engine = await bench.ready(fake_model("tiny", *args))
    core = await core_of(bench)
    await eventually((bench.run_dir / "i/n0001/shm").exists)
    assert len(left_in_shared_memory([core])) == 2
    killed = time.monotonic()
    os.kill({"main": engine.main_pid, "EngineCore": core, "shim": engine.shim_pid}[victim], 9)
    exit_ = await engine.wait_lost()
    # While it loads EngineCore is not vital to us: it is the API server that ends without it.
    through_server = (victim, state) == ("EngineCore", "starting")
    assert time.monotonic() - killed < (1.0 if through_server else 0.1)
    if through_server:
        assert exit_.exit_status == 1
    elif (victim, state) == ("EngineCore", "ready"):
        assert exit_.note == f"EngineCore (pid {core}) ended"
    elif victim == "shim":
        assert exit_.note == f"the shim (pid {engine.shim_pid}) ended"
    else:
        assert exit_.signal == signal.SIGKILL
    await gone(engine)
    assert bench.alive() == []
    assert bench.instances() == []
    assert left_in_shared_memory([core]) == []


async def test_sigterm_to_the_shim_ends_everything(bench: Bench):
    engine = await bench.ready(fake_model("tiny", "--fake-detach", "1", *IGNORED))
    os.kill(engine.shim_pid, signal.SIGTERM)
    await engine.wait_lost()
    assert await gone(engine) < 2
    assert bench.alive() == []


async def test_an_ignored_sigterm_is_followed_by_kill_after_the_grace(bench: Bench):
    engine = await bench.ready(fake_model("tiny", *IGNORED))
    asked = time.monotonic()
    engine.stop(Seconds(0.4))
    exit_ = await engine.wait_lost()
    assert exit_.signal == signal.SIGKILL
    assert 0.35 < time.monotonic() - asked < 1.0
    await gone(engine)


async def test_a_stop_during_the_start_takes_its_grace_at_most(bench: Bench):
    model = fake_model("tiny", "--fake-never-ready", "--fake-swallow-sigterm", "--fake-detach", "1")
    engine = await bench.start(model)
    await core_of(bench)
    asked = time.monotonic()
    engine.stop(Seconds(1))
    await gone(engine)
    assert 0.9 < time.monotonic() - asked < 2


async def test_a_second_stop_shortens_the_grace_and_never_lengthens_it(bench: Bench):
    engine = await bench.ready(fake_model("tiny", *IGNORED))
    engine.stop(Seconds(60))
    engine.stop(Seconds(0.2))
    engine.stop(Seconds(60))
    assert await gone(engine) < 1.2
    engine.stop(Seconds(0))  # already gone: nothing happens


async def test_a_stop_with_0_kills_at_once(bench: Bench):
    engine = await bench.ready(fake_model("tiny", "--fake-stop-seconds", "30"))
    engine.stop(Seconds(0))
    assert (await engine.wait_lost()).signal == signal.SIGKILL
    assert await gone(engine) < 1


@pytest.mark.parametrize("victim", ["main", "shim"])
async def test_a_descendant_that_forks_without_end_is_outrun(bench: Bench, victim: str):
    """Each fork ends its parent, so that a single one lives. It would go on for 20 s."""
    hydra = (
        "import os, signal, time\n"
        "end, heads = time.monotonic() + 20, 0\n"
        "if os.fork():\n"
        "    os.wait()\n"
        "    signal.pause()\n"
        "os.setsid()\n"
        "while time.monotonic() < end:\n"
        "    heads += 1\n"
        "    if heads == 20: os.write(1, b'on its way\\n')\n"
        "    if os.fork(): os._exit(0)\n"
    )
    model = with_command(fake_model(), sys.executable, "-S", "-c", hydra)
    engine = await bench.start(model)
    await eventually(lambda: "on its way" in bench.lines)
    os.kill(engine.main_pid if victim == "main" else engine.shim_pid, signal.SIGKILL)
    await gone(engine, 5)
    assert bench.alive() == []


async def test_waiters_may_be_cancelled_and_there_may_be_many(bench: Bench):
    engine = await bench.ready()
    async with asyncio.TaskGroup() as waiting:
        lost = [waiting.create_task(engine.wait_lost(), name=f"lost {n}") for n in range(5)]
        ends = [waiting.create_task(engine.wait_gone(), name=f"gone {n}") for n in range(5)]
        await asyncio.sleep(0)
        lost[0].cancel()
        ends[0].cancel()
        await asyncio.sleep(0)
        engine.stop(Seconds(5))
    assert len({task.result() for task in lost[1:]}) == 1


async def test_a_cancelled_start_leaves_nothing(bench: Bench):
    for turns in range(12):  # at a different point each time
        async with asyncio.TaskGroup() as tasks:
            start = tasks.create_task(bench.start(), name="start")
            for _ in range(turns):
                await asyncio.sleep(0.001)
            start.cancel()
            await asyncio.wait([start])
        if not start.cancelled():
            start.result().stop(Seconds(0))
            await start.result().wait_gone()
        assert bench.alive() == []
        assert bench.instances() == []


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("/nowhere/vllm", "No such file or directory"),
        ("/etc/passwd", "Permission denied"),
        ("/etc", "Permission denied"),
    ],
)
async def test_a_command_that_cannot_be_executed_is_a_clear_error(bench: Bench, command, why):
    with pytest.raises(HostError, match=f"cannot start model 'tiny': {command}: {why}") as caught:
        await bench.start(with_command(fake_model(), command, "serve"))
    assert "sparkd check" in (caught.value.hint or "")
    assert bench.instances() == []


async def test_a_run_directory_too_long_for_sockets_is_a_clear_error(tmp_path: Path):
    deep = tmp_path / ("d" * 100)
    logs = LogStore(deep / "logs")
    launcher = await ProcessLauncher.open(deep, logs)
    with pytest.raises(HostError, match="bytes and may have") as caught:
        await launcher.start(InstanceId("n1"), fake_model(), lambda _: None)
    assert "shorter run directory" in (caught.value.hint or "")
    assert list((deep / "i").iterdir()) == []
    await launcher.close()
    await logs.close()


async def test_the_log_shows_where_each_life_begins_and_ends(bench: Bench):
    engine = await bench.ready()
    engine.stop(Seconds(5))
    await engine.wait_gone()
    lines = await bench.logs.tail(fake_model().id)
    assert f"[sparkd] instance n0001 started, pid {engine.main_pid}" in lines
    assert lines[-1] == "[sparkd] instance n0001 is gone"


async def test_a_process_without_free_descriptors_gets_a_clear_error_and_loses_none(bench: Bench):
    await bench.ready()  # all that is made lazily exists
    refusals: list[str] = []
    before = open_files()
    for spare in range(8):
        try:
            with so_many_descriptors(spare):
                engine = await bench.start()
        except HostError as error:
            refusals.append(error.message)
        else:
            engine.stop(Seconds(0))
            await engine.wait_gone()
            await eventually(lambda: not engine._searches)  # noqa: B023  it ends before the next
        assert open_files() == before
    assert all("Too many open files" in message for message in refusals)
    assert len(refusals) >= 5
    assert len(bench.instances()) == 1


async def test_twenty_instances_at_once_and_no_descriptor_is_lost(bench: Bench):
    first = await bench.ready()  # all that is made lazily exists
    first.stop(Seconds(0))
    await first.wait_gone()
    before = open_files()
    async with asyncio.TaskGroup() as tasks:
        for number in range(20):
            tasks.create_task(bench.ready(fake_model(f"m{number}")), name=f"start {number}")
    engines = list(bench.launcher._engines)
    assert len(engines) == 20
    for engine in engines:
        engine.stop(Seconds(5))
    for engine in engines:
        assert (await engine.wait_lost()).exit_status == 0
        await engine.wait_gone()
    assert open_files() == before
    assert bench.instances() == []


async def test_close_kills_everything_and_later_starts_are_refused(bench: Bench):
    await bench.ready(fake_model("a", *IGNORED))
    await bench.start(fake_model("b", "--fake-never-ready", "--fake-detach", "1"))
    async with asyncio.timeout(3):
        await bench.launcher.close()
    assert bench.alive() == []
    with pytest.raises(HostError, match="the launcher is closed"):
        await bench.start()


async def test_shared_memory_that_another_process_maps_stays(bench: Bench):
    engine = await bench.ready(fake_model("tiny", "--fake-shm"))
    core = await core_of(bench)
    path = Path(f"/dev/shm/psm_fake{core}")
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0):
        engine.stop(Seconds(5))
        await gone(engine)
        assert left_in_shared_memory([core]) == [path.name]
    path.unlink()


async def test_a_flood_of_log_lines_neither_stops_the_engine_nor_hides_its_end(bench: Bench):
    model = fake_model("tiny", "--fake-print-seconds", "0.5", "--fake-exit-after", "0")
    engine = await bench.start(model)
    assert (await engine.wait_lost()).exit_status == 0
    assert len(engine.log_tail()) == 200
    assert engine.log_tail()[-1].startswith("INFO line ")
    await gone(engine)


async def test_an_engine_sees_little_of_the_daemons_environment(bench: Bench, monkeypatch):
    monkeypatch.setenv("SPARKD_SECRET", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    engine = await bench.ready()
    raw = Path(f"/proc/{engine.main_pid}/environ").read_bytes()
    names = {entry.partition(b"=")[0].decode() for entry in raw.split(b"\0")}
    assert "SPARKD_SECRET" not in names
    assert {"PATH", "CUDA_VISIBLE_DEVICES", "TMPDIR", "HF_HUB_OFFLINE"} <= names


async def test_an_engine_inherits_no_descriptor_but_its_three_streams(bench: Bench):
    code = "import os; print(sorted(map(int, os.listdir('/proc/self/fd'))), flush=True)"
    engine = await bench.start(with_command(fake_model(), sys.executable, "-S", "-c", code))
    await gone(engine)
    assert bench.lines == ["[0, 1, 2, 3]"]  # 3 is the directory that lists them


async def test_a_ready_engine_costs_no_wake_up(bench: Bench):
    engine = await bench.ready()
    shim = Path(f"/proc/{engine.shim_pid}/status")

    def switches() -> int:
        fields = dict(line.split(":", 1) for line in shim.read_text().splitlines())
        return int(fields["voluntary_ctxt_switches"])

    before = switches()
    await asyncio.sleep(1.5)  # longer than the sampling interval of a start
    assert switches() - before <= 1


async def test_the_socket_is_reachable_for_the_daemons_user_alone(bench: Bench):
    engine = await bench.ready()
    path = Path(engine.upstream.socket_path)
    assert path.is_socket()
    assert path.parent.stat().st_mode & 0o777 == 0o700
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, str(path))
