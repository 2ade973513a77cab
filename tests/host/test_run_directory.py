"""The run directory: what is in it may be anything, and what is not the daemon's own stays."""
# ruff: noqa: ASYNC221, ASYNC240  a test may block its loop

from __future__ import annotations

import mmap
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sparkd.core.instance import InstanceId
from sparkd.core.quantities import Seconds
from sparkd.errors import HostError
from sparkd.host import remains, shim
from sparkd.host.logs import LogStore
from sparkd.host.processes import ProcessLauncher
from tests.host.kit import (
    Bench,
    fake_model,
    left_in_shared_memory,
    short_directory,
    titled,
    with_command,
)


async def opened_and_closed(run_dir: Path) -> None:
    logs = LogStore(run_dir / "logs")
    launcher = await ProcessLauncher.open(run_dir, logs)
    await launcher.close()
    await logs.close()


def leftover(run_dir: Path, name: str = "n1") -> Path:
    directory = run_dir / "i" / name
    (directory / "t").mkdir(parents=True)
    (directory / "lock").touch()
    return directory


@contextmanager
def shared_file(name: str) -> Iterator[Path]:
    path = Path("/dev/shm") / name
    path.write_bytes(b"x" * mmap.PAGESIZE)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("notes", [b"12x\n", b"\xff\xfe", b"123", b"1 2 3\n\n", b"9" * 10000])
async def test_notes_that_a_full_disk_cut_do_not_stop_the_daemon(notes: bytes):
    with short_directory() as run_dir:
        directory = leftover(run_dir)
        (directory / "shm").write_bytes(notes)
        await opened_and_closed(run_dir)
        assert not directory.exists()


async def test_a_sweep_follows_no_link_and_takes_only_what_it_knows():
    with short_directory() as run_dir:
        precious = run_dir / "precious"
        precious.mkdir()
        (precious / "lock").touch()
        (precious / "data").touch()
        (run_dir / "i").mkdir(mode=0o700)
        (run_dir / "i" / "link").symlink_to(precious)
        (run_dir / "i" / "mine").mkdir()
        (run_dir / "i" / "mine" / "file").touch()
        (run_dir / "i" / "empty").mkdir()  # killed between mkdir and lock
        await opened_and_closed(run_dir)
        assert (precious / "data").exists()
        assert (run_dir / "i" / "mine" / "file").exists()
        assert not (run_dir / "i" / "empty").exists()


async def test_links_in_what_is_left_are_removed_and_not_followed():
    with short_directory() as run_dir:
        precious = run_dir / "precious"
        precious.mkdir()
        (precious / "data").touch()
        directory = leftover(run_dir)
        (directory / "t" / "link").symlink_to(precious)
        (directory / "t" / "file link").symlink_to(precious / "data")
        await opened_and_closed(run_dir)
        assert not directory.exists()
        assert (precious / "data").exists()


async def test_another_programs_memory_with_a_noted_inode_stays():
    """After a reboot, or in another container, the numbers begin again."""
    with short_directory() as run_dir, shared_file(f"psm_other{os.getpid()}") as path:
        directory = leftover(run_dir)
        inode = path.stat().st_ino
        (directory / "shm").write_text(f"{inode}\n{inode} psm_another\n")
        await opened_and_closed(run_dir)
        assert path.exists()


async def test_shared_memory_that_was_there_before_the_instance_stays(bench: Bench):
    with shared_file(f"psm_before{os.getpid()}") as path:
        code = (
            "import mmap, signal\n"
            f"with open({str(path)!r}, 'r+b') as file: kept = mmap.mmap(file.fileno(), 0)\n"
            "print('mapped', flush=True)\n"
        )
        run = "runpy.run_path(sys.argv[0], run_name='__main__')"
        wrapper = f"{code}\nimport runpy, sys\nsys.argv = sys.argv[1:]\n{run}"
        model = fake_model("tiny", "--fake-shm")
        command = model.launch.runtime.command
        engine = await bench.ready(with_command(model, command[0], "-c", wrapper, *command[1:]))
        core = titled(bench.run_dir, "VLLM::EngineCore")[0]
        assert "mapped" in bench.lines
        engine.stop(Seconds(0))
        await engine.wait_gone()
        assert left_in_shared_memory([core]) == []
        assert path.exists()


async def test_a_run_directory_by_another_name_is_the_same_to_the_sweep():
    with short_directory() as run_dir, short_directory() as elsewhere:
        link = elsewhere / "link"
        link.symlink_to(run_dir)
        directory = leftover(run_dir)
        marks = {shim.MARK: os.path.realpath(directory)}
        pid = os.posix_spawn("/bin/sleep", ["sleep", "60"], marks)
        await opened_and_closed(link)
        assert not directory.exists()
        assert not Path(f"/proc/{pid}").exists()  # killed, and reaped by the sweep


async def test_an_instance_is_marked_with_the_real_path():
    with short_directory() as run_dir, short_directory() as elsewhere:
        link = elsewhere / "link"
        link.symlink_to(run_dir)
        logs = LogStore(run_dir / "logs")
        launcher = await ProcessLauncher.open(link, logs)
        engine = await launcher.start(InstanceId("n1"), fake_model(), lambda _: None)
        environment = Path(f"/proc/{engine.main_pid}/environ").read_bytes().split(b"\0")
        assert f"{shim.MARK}={os.path.realpath(run_dir / 'i/n1')}".encode() in environment
        await launcher.close()
        await logs.close()


async def test_instances_that_others_could_write_to_are_closed_to_them():
    with short_directory() as run_dir:
        (run_dir / "i").mkdir()
        (run_dir / "i").chmod(0o777)
        await opened_and_closed(run_dir)
        assert stat.S_IMODE((run_dir / "i").stat().st_mode) == 0o700


async def test_a_run_directory_that_is_a_link_to_elsewhere_is_refused():
    with short_directory() as run_dir:
        (run_dir / "elsewhere").mkdir()
        (run_dir / "i").symlink_to(run_dir / "elsewhere")
        with pytest.raises(HostError, match="cannot prepare the run directory"):
            await opened_and_closed(run_dir)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a directory of another user's")
async def test_a_run_directory_of_another_user_is_refused():
    with short_directory() as run_dir:
        (run_dir / "i").mkdir()
        os.chown(run_dir / "i", 65534, 65534)
        with pytest.raises(HostError, match="belongs to user 65534"):
            await opened_and_closed(run_dir)


def test_a_sweep_beside_a_start_takes_nothing_that_is_being_made():
    """Two daemons in one run directory: a directory without its lock is not yet left over."""
    with short_directory() as run_dir:
        (run_dir / "i").mkdir(mode=0o700)
        logs = LogStore(run_dir / "logs")
        launcher = ProcessLauncher(run_dir, logs, None)
        stop = threading.Event()

        def sweep() -> None:
            while not stop.is_set():
                remains.sweep(run_dir / "i")

        sweeper = threading.Thread(target=sweep)
        sweeper.start()
        try:
            for number in range(100):
                directory, lock = launcher._make_directory(InstanceId(f"n{number}"))
                assert remains.take_lock(directory) is None
                lock.close()
        finally:
            stop.set()
            sweeper.join()
