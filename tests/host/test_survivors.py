"""Hostile descendants, shims and surroundings: an instance still ends, and only it does."""
# ruff: noqa: ASYNC240  /proc is in memory, and a test may block its loop

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from sparkd.core.instance import InstanceId
from sparkd.core.quantities import Seconds
from sparkd.errors import HostError, ModelUnavailableError
from sparkd.host import remains, shim
from sparkd.host.logs import LogStore
from sparkd.host.processes import ProcessLauncher
from tests.host.kit import (
    Bench,
    eventually,
    fake_model,
    own_zombies,
    short_directory,
    titled,
    with_command,
)

_SYS_EXIT = {"x86_64": 60, "aarch64": 93}[platform.machine()]
#: Its main thread ends, another goes on: /proc shows a zombie, and it is none.
_HEADLESS = (
    "import ctypes, threading\n"
    "threading.Thread(target=threading.Event().wait).start()\n"
    "print('headless', flush=True)\n"
    f"ctypes.CDLL(None).syscall({_SYS_EXIT}, 0)\n"
)


def python(code: str, *more: str):
    return with_command(fake_model(), sys.executable, "-S", "-c", code, *more)


def forked(code: str) -> str:
    """The engine forks a child that runs this, and waits for ever itself."""
    return f"import os, signal\nif os.fork() == 0:\n    exec({code!r})\nelse:\n    signal.pause()\n"


async def below(engine) -> list[shim.Process]:
    return await asyncio.to_thread(shim.descendants, engine.shim_pid)


async def gone(engine, seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        await engine.wait_gone()


@pytest.mark.parametrize("victim", ["main", "shim"])
async def test_a_descendant_without_its_main_thread_is_killed(bench: Bench, victim: str):
    engine = await bench.start(python(forked(_HEADLESS)))
    await eventually(lambda: "headless" in bench.lines)
    await eventually(lambda: any(is_headless(one) for one in shim.descendants(engine.shim_pid)))
    ours = [one.pid for one in await below(engine)]
    os.kill(engine.main_pid if victim == "main" else engine.shim_pid, signal.SIGKILL)
    await gone(engine)
    assert [pid for pid in ours if Path(f"/proc/{pid}").exists()] == []


def is_headless(one: shim.Process) -> bool:
    try:
        threads = len(list(Path(f"/proc/{one.pid}/task").iterdir()))
    except OSError:
        return False
    return one.state == "Z" and threads == 2


async def test_a_stopped_shim_obeys_a_stop(bench: Bench):
    engine = await bench.ready()
    os.kill(engine.shim_pid, signal.SIGSTOP)
    engine.stop(Seconds(0))
    await gone(engine)


async def test_stopped_descendants_die(bench: Bench):
    engine = await bench.ready(fake_model("tiny", "--fake-workers", "1", "--fake-detach", "1"))
    for one in await below(engine):
        os.kill(one.pid, signal.SIGSTOP)
    engine.stop(Seconds(0.3))
    await gone(engine)


async def test_a_grace_of_a_month_is_no_fault(bench: Bench):
    engine = await bench.ready(fake_model("tiny", "--fake-ignore-sigterm"))
    engine.stop(Seconds(40 * 86400))
    await asyncio.sleep(0.2)  # for the shim to hear it
    assert not engine._lost.done()
    engine.stop(Seconds(0))
    assert (await engine.wait_lost()).signal == signal.SIGKILL
    await gone(engine)


async def test_an_engine_that_kills_its_process_group_is_told_as_it_is(bench: Bench):
    engine = await bench.start(python("import os; os.kill(0, 9)"))
    exit_ = await engine.wait_lost()
    assert (exit_.signal, exit_.note) == (signal.SIGKILL, "")
    await gone(engine)


async def test_a_loss_is_told_though_the_daemon_was_started_with_signals_blocked(bench: Bench):
    await bench.ready()  # the loop's threads exist
    blocked = {signal.SIGCHLD, signal.SIGTERM}
    started: list[object] = []

    def start() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, blocked)  # of this thread alone
        started.append(bench.launcher._spawn(InstanceId("masked"), fake_model().launch))

    thread = threading.Thread(target=start)
    thread.start()
    await asyncio.to_thread(thread.join)
    engine = bench.launcher._adopt(started[0], bench.lines.append)  # type: ignore[arg-type]
    pid = await engine.wait_started()
    masks = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "Blk" in line]
    assert [int(mask.split()[1], 16) for mask in masks if mask.startswith("SigBlk")] == [0]
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(1):
        await engine.wait_lost()
    await gone(engine)


async def test_orphans_die_though_their_directory_is_gone(bench: Bench):
    engine = await bench.ready(fake_model("tiny", "--fake-detach", "2"))
    os.kill(engine.shim_pid, signal.SIGSTOP)
    shutil.rmtree(bench.run_dir / "i/n0001")
    os.kill(engine.shim_pid, signal.SIGKILL)
    await gone(engine)
    assert bench.alive() == []


async def test_adopted_zombies_are_reaped(bench: Bench):
    before = set(await asyncio.to_thread(own_zombies))
    engine = await bench.ready(fake_model("tiny", "--fake-detach", "3"))
    assert len([one for one in await below(engine) if one.session != engine.shim_pid]) == 3
    os.kill(engine.shim_pid, signal.SIGSTOP)
    for one in await below(engine):
        os.kill(one.pid, signal.SIGKILL)  # zombies before anybody looks
    os.kill(engine.shim_pid, signal.SIGKILL)
    await gone(engine)
    assert set(await asyncio.to_thread(own_zombies)) <= before


async def test_close_waits_for_a_start_that_has_just_begun(bench: Bench):
    async with asyncio.TaskGroup() as tasks:
        start = tasks.create_task(bench.start(), name="start")
        await asyncio.sleep(0)  # its thread works
        async with asyncio.timeout(5):
            await bench.launcher.close()
        assert bench.instances() == []
        assert bench.alive() == []
        await asyncio.wait([start])


async def test_a_cgroup_that_cannot_be_made_costs_the_cgroup_not_the_start(caplog):
    with short_directory() as run_dir:
        logs = LogStore(run_dir / "logs")
        launcher = await ProcessLauncher.open(run_dir, logs, cgroup=run_dir / "not there")
        await Bench(launcher, run_dir, logs).ready()
        assert "cannot make a cgroup" in caplog.text
        await launcher.close()
        await logs.close()


async def test_secrets_that_look_like_settings_stay_with_the_daemon(bench: Bench, monkeypatch):
    secrets = ("NVIDIA_API_KEY", "CUDA_TOKEN", "NVIDIA_NGC_SECRET", "CUDA_X_PASSWORD")
    for name in secrets:
        monkeypatch.setenv(name, "s3cret")
    engine = await bench.start()
    assert b"s3cret" not in Path(f"/proc/{engine.main_pid}/environ").read_bytes()


async def test_directories_that_may_not_be_written_are_removed(bench: Bench):
    code = (
        "import os; os.makedirs('a/b'); open('a/b/c', 'w').close()\n"
        "os.chmod('a/b', 0o500); os.chmod('a', 0o000)"
    )
    engine = await bench.start(python(code))
    await gone(engine)
    assert bench.instances() == []


async def test_a_start_that_the_run_directory_refuses_names_the_directory(bench: Bench):
    (bench.run_dir / "i").rename(bench.run_dir / "moved")
    with pytest.raises(HostError, match="No such file or directory") as caught:
        await bench.start()
    (bench.run_dir / "moved").rename(bench.run_dir / "i")
    assert str(bench.run_dir / "i") in caught.value.message
    assert "runtime" not in (caught.value.hint or "")


async def test_everything_dies_without_pidfds_in_pythons_own_library(bench: Bench, monkeypatch):
    """A Python that was built with old kernel headers has none; the kernel has."""
    monkeypatch.delattr(os, "pidfd_open")
    monkeypatch.delattr(signal, "pidfd_send_signal")
    engine = await bench.ready(fake_model("tiny", "--fake-detach", "2"))
    core = titled(bench.run_dir, "VLLM::EngineCore")[0]
    os.kill(engine.shim_pid, signal.SIGKILL)
    await gone(engine)
    assert bench.alive() == []
    engine = await bench.ready()
    core = titled(bench.run_dir, "VLLM::EngineCore")[0]
    os.kill(core, signal.SIGKILL)
    assert (await engine.wait_lost()).note == f"EngineCore (pid {core}) ended"
    await gone(engine)


async def test_the_shim_itself_needs_no_pidfd_in_pythons_library(bench: Bench, tmp_path: Path):
    """The same, on the other side: its Python is the daemon's."""
    text = Path(shim.__file__).read_text()
    crippled = tmp_path / "shim.py"
    future = "from __future__ import annotations\n"
    cut = "import os as _os, signal as _s\ndel _os.pidfd_open, _s.pidfd_send_signal\n"
    crippled.write_text(text.replace(future, future + cut, 1))
    original = shim.__file__
    shim.__file__ = str(crippled)
    try:
        engine = await bench.ready(fake_model("tiny", "--fake-detach", "2"))
    finally:
        shim.__file__ = original
    engine.stop(Seconds(0))
    assert (await engine.wait_lost()).signal == signal.SIGKILL
    await gone(engine)
    assert "Traceback" not in "".join(bench.lines)


def test_what_cannot_be_killed_does_not_hold_up_the_sweep(monkeypatch, caplog):
    monkeypatch.setattr(remains, "_GIVE_UP_AFTER", 0.2)
    monkeypatch.setattr(shim, "kill", lambda _: None)
    with short_directory() as directory:
        left = directory / "i" / "n1"
        left.mkdir(parents=True)
        (left / "lock").touch()
        pid = os.posix_spawn("/bin/sleep", ["sleep", "60"], {shim.MARK: os.path.realpath(left)})
        try:
            remains.sweep(directory / "i")
            assert left.exists()
            assert f"pid {pid}" in caplog.text
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


async def test_weights_of_another_length_than_a_path_may_have_do_not_break_the_check(bench: Bench):
    launch = replace(fake_model().launch, weights="/" + "x" * 5000)
    with pytest.raises(ModelUnavailableError, match="File name too long"):
        await bench.launcher.check(launch)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start processes of another user")
@pytest.mark.parametrize("victim", ["main", "shim"])
async def test_a_fork_bomb_of_another_user_is_frozen_and_killed(bench: Bench, victim: str):
    """For 30 s, and so many at once as that user may have."""
    bomb = (
        "import os, resource, time\n"
        "end = time.monotonic() + 30\n"
        "resource.setrlimit(resource.RLIMIT_NPROC, (30, 30))\n"
        "os.setuid(54321)\n"
        "while time.monotonic() < end:\n"
        "    try:\n"
        "        if os.fork() == 0: os.setsid()\n"
        "    except OSError:\n"
        "        pass\n"
    )
    engine = await bench.start(python(bomb))
    await eventually(lambda: len(shim.descendants(engine.shim_pid)) >= 25)
    os.kill(engine.main_pid if victim == "main" else engine.shim_pid, signal.SIGKILL)
    await gone(engine, 10)
    assert await asyncio.to_thread(bench.alive) == []
