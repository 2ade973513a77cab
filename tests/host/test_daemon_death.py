"""The daemon's own end: killed by -9 it leaves nothing, and what was left is swept at the start."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sparkd.core.instance import InstanceId
from sparkd.host.logs import LogStore
from sparkd.host.processes import ProcessLauncher
from sparkd.host.shim import MARK
from tests.host.kit import (
    eventually,
    fake_model,
    left_in_shared_memory,
    marked,
    processes_bench,
    short_directory,
    titled,
)

ARGS = ("--fake-shm", "--fake-workers", "1", "--fake-detach", "2", "--fake-ignore-sigterm")


async def daemon(run_dir: Path, *args: str) -> None:
    """Run as a process of its own: starts two engines and waits to be killed."""
    launcher = await ProcessLauncher.open(run_dir, LogStore(run_dir / "logs"))
    for number in range(2):
        model = fake_model(f"m{number}", *args)
        await launcher.start(InstanceId(f"d{number}"), model, lambda _: None)
    await asyncio.Event().wait()


@asynccontextmanager
async def running_daemon(run_dir: Path, *args: str) -> AsyncIterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", __name__, str(run_dir), *args]
    process = await asyncio.to_thread(subprocess.Popen, command)
    try:
        yield process
    finally:
        process.kill()
        await asyncio.to_thread(process.wait)


@pytest.mark.parametrize("state", ["starting", "ready"])
async def test_nothing_survives_kill_9_of_the_daemon(state: str):
    more = ("--fake-never-ready",) if state == "starting" else ()
    with short_directory() as run_dir:
        async with running_daemon(run_dir, *ARGS, *more) as process:
            await eventually(lambda: len(titled(run_dir, "VLLM::Worker")) == 2)
            await eventually(lambda: len(list(run_dir.glob("i/*/shm"))) == 2)
            cores = titled(run_dir, "VLLM::EngineCore")
            assert len(left_in_shared_memory(cores)) == 4
            process.kill()
            killed = time.monotonic()
            await asyncio.to_thread(process.wait)
            await eventually(lambda: not marked(run_dir) and not list((run_dir / "i").iterdir()), 5)
            assert time.monotonic() - killed < 2
            assert left_in_shared_memory(cores) == []


async def test_what_a_dead_daemon_and_its_dead_shims_left_is_swept_at_the_start():
    with short_directory() as run_dir:
        async with running_daemon(run_dir, *ARGS) as process:
            await eventually(lambda: len(titled(run_dir, "VLLM::Worker")) == 2)
            await eventually(lambda: len(list(run_dir.glob("i/*/shm"))) == 2)
            cores = titled(run_dir, "VLLM::EngineCore")
            shims = [pid for pid in marked(run_dir) if b"shim.py" in cmdline(pid)]
            for pid in (process.pid, *shims):  # all before any of them can react
                os.kill(pid, signal.SIGSTOP)
            for pid in (process.pid, *shims):
                os.kill(pid, signal.SIGKILL)
            await asyncio.to_thread(process.wait)
            await eventually(lambda: not titled(run_dir, sys.executable))  # the API servers
            assert marked(run_dir) != []
            launcher = await ProcessLauncher.open(run_dir, LogStore(run_dir / "logs"))
            assert marked(run_dir) == []
            assert await asyncio.to_thread(lambda: list((run_dir / "i").iterdir())) == []
            assert left_in_shared_memory(cores) == []
            await launcher.close()


async def test_a_sweep_leaves_the_instances_of_a_living_launcher_alone():
    async with processes_bench() as bench:
        engine = await bench.ready()
        other = await ProcessLauncher.open(bench.run_dir, bench.logs)
        await other.close()
        assert bench.instances() == ["n0001"]
        assert engine.main_pid in bench.alive()


async def test_a_stale_socket_and_a_directory_of_the_same_name_do_not_refuse_a_start():
    with short_directory() as run_dir:
        stale = run_dir / "i" / "n1"
        (stale / "t").mkdir(parents=True)
        (stale / "s").write_text("stale")
        (stale / "lock").touch()
        logs = LogStore(run_dir / "logs")
        launcher = await ProcessLauncher.open(run_dir, logs)
        assert not await asyncio.to_thread(stale.exists)
        await asyncio.to_thread(stale.mkdir)
        engine = await launcher.start(InstanceId("n1"), fake_model(), lambda _: None)
        assert engine.upstream.socket_path == str(run_dir / "i/n1.1/s")
        await launcher.close()
        await logs.close()


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_the_mark_is_what_the_tests_look_for():
    assert MARK == "SPARKD_INSTANCE"


if __name__ == "__main__":
    asyncio.run(daemon(Path(sys.argv[1]), *sys.argv[2:]))
