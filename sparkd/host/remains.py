"""Finds and removes what shims could not: after a shim was killed, and after a daemon's last life.

Everything here blocks and runs in a thread. What is killed is told by its session, which stays
taken while the dead shim is not reaped, or by the mark in its environment; never by a bare pid.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import math
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from sparkd.host import shim

_log = logging.getLogger(__name__)

_ROUND_MS = 50
_LATE = 5.0  # s; what lives on after a SIGKILL for longer is worth a line in the log
_GIVE_UP_AFTER = 10.0  # s; what a driver holds must not keep the daemon from starting
_TOLD_AT_MOST = 10  # of them, in that line
#: Instances end in several threads. What is reaped under its hands is nobody's to signal.
_REAPING = threading.Lock()


def kill_orphans(
    directory: Path,
    shim_pid: int | None = None,
    cgroup: Path | None = None,
    give_up_after: float = math.inf,
) -> bool:
    """Kills and reaps all processes of the instance whose shim is dead and not yet reaped.

    False if some still live after so many seconds.
    """
    known: set[tuple[int, int]] = set()  # a zombie no longer shows the mark
    began, told = time.monotonic(), False
    while True:
        try:
            found = _frozen(directory, shim_pid, known)
        except OSError as error:  # no descriptor is free: nobody may be missed, so it looks again
            _log.warning("cannot list the processes of %s yet: %s", directory, error)
            _wait_for_any([])
            continue
        if cgroup is not None:
            shim.kill_cgroup(str(cgroup))
        for one in found:
            shim.kill(one)  # zombies too: only its main thread may have ended
            if one.state == "Z":
                _reap(one)
        if not found:
            return True
        took = time.monotonic() - began
        if took > min(_LATE, give_up_after) and not told:
            told = True
            some = found[:_TOLD_AT_MOST]
            living = ", ".join(f"pid {one.pid} (state {one.state})" for one in some)
            _log.warning(
                "%d processes of %s live on after SIGKILL: %s", len(found), directory, living
            )
        if took > give_up_after:
            return False
        _wait_for_any([one.pid for one in found])


def _frozen(
    directory: Path, shim_pid: int | None, known: set[tuple[int, int]]
) -> list[shim.Process]:
    """All of the instance, stopped: what forks without end would fill the places of the dead."""
    found: list[shim.Process] = []
    for _ in range(shim.FREEZE_ROUNDS):
        _freeze_adopted(directory, shim_pid, known)
        found = [one for one in shim.processes() if _belongs(one, directory, shim_pid, known)]
        running = [one for one in found if (one.pid, one.start) not in known]
        if not running:
            break
        for one in running:
            shim.freeze(one)
            known.add((one.pid, one.start))
    return found


def _freeze_adopted(directory: Path, shim_pid: int | None, known: set[tuple[int, int]]) -> None:
    """Those that came to this process, with their process groups.

    A signal to a group also meets who is being forked into it; a walk through /proc finds of one
    who forks and ends without end nothing but the dead. Until they are reaped they keep the group.
    """
    with _REAPING:
        for pid in shim.children():
            one = shim.process(pid)
            if one is None or not _belongs(one, directory, shim_pid, known):
                continue
            if one.session != os.getsid(0):
                with contextlib.suppress(OSError):
                    os.killpg(os.getpgid(pid), signal.SIGSTOP)
            if one.state == "Z":
                _take_status(pid)


def _note_shared_memory(directory: Path, shim_pid: int | None = None) -> None:
    """The shim may have died before it saw what the living ones map."""
    try:
        found = _frozen(directory, shim_pid, set())
    except OSError:  # killing matters more
        return
    shim.note(str(directory), {inode for one in found for inode in shim.mapped(one.pid)})


def _belongs(
    one: shim.Process, directory: Path, shim_pid: int | None, known: set[tuple[int, int]]
) -> bool:
    own = os.getpid()
    if one.pid in (own, shim_pid):
        return False
    in_session = shim_pid is not None and one.session == shim_pid
    if one.state == "Z" and one.parent == own:
        # What this process starts itself leads its session or is of this one's: no child of a child
        # becomes ours but by the death of a shim.
        adopted = one.session not in (os.getsid(0), one.pid)
        if in_session or adopted or (one.pid, one.start) in known:
            return True
    if one.state == "Z" and not _has_threads(one.pid):
        return False  # another's zombie is that parent's to reap, and holds nothing
    if in_session or (one.pid, one.start) in known:
        return True
    environment = _environment(one.pid)
    if not environment and one.state != "Z":  # it has ended since its state was read
        later = shim.process(one.pid)
        if later is None or (later.start, later.state) != (one.start, "Z"):
            return False
        return _belongs(later, directory, shim_pid, known)
    mark = f"{shim.MARK}={os.path.realpath(directory)}"
    return mark.encode() in environment


def _has_threads(pid: int) -> bool:
    """Its main thread may have ended, which shows as a zombie, while others go on."""
    try:
        return len(list(Path(f"/proc/{pid}/task").iterdir())) > 1
    except OSError:
        return False


def _environment(pid: int) -> list[bytes]:
    """Of any thread: one that has ended shows nothing."""
    for path in (Path(f"/proc/{pid}/environ"), *Path(f"/proc/{pid}/task").glob("*/environ")):
        with contextlib.suppress(OSError):  # gone, or another user's
            if data := path.read_bytes():
                return data.split(b"\0")
    return []


def _reap(one: shim.Process) -> None:
    with _REAPING:
        _take_status(one.pid)


def _take_status(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _wait_for_any(pids: list[int]) -> None:
    """Returns when one of them has ended, and after 50 ms at the latest."""
    with contextlib.ExitStack() as stack:
        poll = select.poll()
        for pid in pids:
            try:
                handle = shim.pidfd_open(pid)
            except ProcessLookupError:  # already reaped
                return
            except OSError:  # no descriptor is free
                continue
            stack.callback(os.close, handle)
            poll.register(handle, select.POLLIN)
        poll.poll(_ROUND_MS)


def sweep(instances: Path) -> None:
    """Ends and removes the instances of earlier daemons: those whose lock no shim holds."""
    for directory in sorted(instances.iterdir()):
        with contextlib.suppress(NotADirectoryError, FileNotFoundError):
            lock = _take_left_over(directory)
            if lock is None:
                continue
            with contextlib.closing(lock):
                _log.warning("removing what an earlier daemon left in %s", directory)
                _note_shared_memory(directory)
                if kill_orphans(directory, give_up_after=_GIVE_UP_AFTER):
                    shim.remove_remains(str(directory))


def _take_left_over(directory: Path) -> Lock | None:
    """None if an instance lives in it, or if it is no instance's: then its files stay."""
    if directory.is_symlink():
        return None
    with turn(directory.parent, fcntl.LOCK_EX):
        if (directory / "lock").exists():
            return take_lock(directory)
        for empty in (directory / "t", directory):  # it was cut off as it began, or at its end
            with contextlib.suppress(OSError):
                empty.rmdir()
        return None


@contextlib.contextmanager
def turn(instances: Path, how: int) -> Iterator[None]:
    """Starts (LOCK_SH) and sweeps (LOCK_EX) of several daemons do not see each other's halves."""
    fd = os.open(instances, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, how)
        yield
    finally:
        os.close(fd)


class Lock:
    """Held while an instance's directory is in use; inherited by its shim."""

    def __init__(self, fd: int):
        self.fd = fd

    def close(self) -> None:
        os.close(self.fd)


def take_lock(directory: Path) -> Lock | None:
    """None if another process holds it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(directory / "lock", flags, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return Lock(fd)


def finish(shim_pid: int, directory: Path, cgroup: Path | None, *, said_gone: bool) -> None:
    """After the control channel of a shim has ended: returns when nothing of the instance is left.

    The shim is not reaped here. While it is a zombie its number cannot name another session.
    """
    with contextlib.suppress(ChildProcessError):  # the daemon was started with SIGCHLD ignored
        os.waitid(os.P_PID, shim_pid, os.WEXITED | os.WNOWAIT)
    if said_gone and not directory.exists():  # it saw everything end
        return
    _note_shared_memory(directory, shim_pid)
    kill_orphans(directory, shim_pid, cgroup)
    if cgroup is not None:
        with contextlib.suppress(OSError):
            cgroup.rmdir()
    shim.remove_remains(str(directory))
