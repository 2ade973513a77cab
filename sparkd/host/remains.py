"""Finds and removes what shims could not: after a shim was killed, and after a daemon's last life.

Everything here blocks and runs in a thread. What is killed is told by its session, which stays
taken while the dead shim is not reaped, or by the mark in its environment; never by a bare pid.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import select
from pathlib import Path

from sparkd.host import shim

_log = logging.getLogger(__name__)

_ROUND_MS = 50


def kill_orphans(directory: Path, shim_pid: int | None = None) -> None:
    """Kills and reaps all processes of the instance whose shim is dead and not yet reaped."""
    known: set[tuple[int, int]] = set()  # a zombie no longer shows the mark
    while True:
        found = [one for one in shim.processes() if _belongs(one, directory, shim_pid, known)]
        known |= {(one.pid, one.start) for one in found}
        for one in found:
            if one.state == "Z":
                _reap(one)
            else:
                shim.kill(one)
        if not found:
            return
        _wait_for_any([one.pid for one in found if one.state != "Z"])


def _belongs(
    one: shim.Process, directory: Path, shim_pid: int | None, known: set[tuple[int, int]]
) -> bool:
    own = os.getpid()
    if one.pid in (own, shim_pid):
        return False
    in_session = shim_pid is not None and one.session == shim_pid
    if one.state == "Z":
        # Another's zombie is that parent's to reap, and holds nothing.
        return one.parent == own and (in_session or (one.pid, one.start) in known)
    return in_session or f"{shim.MARK}={directory}".encode() in _environment(one.pid)


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # gone, or another user's
        return []


def _reap(one: shim.Process) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(one.pid, os.WNOHANG)


def _wait_for_any(pids: list[int]) -> None:
    """Returns when one of them has ended, and after 50 ms at the latest."""
    if not pids:
        return
    with contextlib.ExitStack() as stack:
        poll = select.poll()
        for pid in pids:
            try:
                handle = os.pidfd_open(pid)
            except OSError:  # already reaped
                return
            stack.callback(os.close, handle)
            poll.register(handle, select.POLLIN)
        poll.poll(_ROUND_MS)


def sweep(instances: Path) -> None:
    """Ends and removes the instances of earlier daemons: those whose lock no shim holds."""
    for directory in sorted(instances.iterdir()):
        with contextlib.suppress(NotADirectoryError, FileNotFoundError):
            lock = take_lock(directory)
            if lock is None:
                continue
            with contextlib.closing(lock):
                _log.warning("removing what an earlier daemon left in %s", directory)
                kill_orphans(directory)
                shim.remove_remains(str(directory))


class Lock:
    """Held while an instance's directory is in use; inherited by its shim."""

    def __init__(self, fd: int):
        self.fd = fd

    def close(self) -> None:
        os.close(self.fd)


def take_lock(directory: Path) -> Lock | None:
    """None if another process holds it."""
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return Lock(fd)


def finish(shim_pid: int, directory: Path, cgroup: Path | None) -> None:
    """After the control channel of a shim has ended: returns when nothing of the instance is left.

    The shim is not reaped here. While it is a zombie its number cannot name another session.
    """
    os.waitid(os.P_PID, shim_pid, os.WEXITED | os.WNOWAIT)
    if not directory.exists():  # the shim's last deed: it saw everything end
        return
    if cgroup is not None:
        shim.kill_cgroup(str(cgroup))
    kill_orphans(directory, shim_pid)
    if cgroup is not None:
        with contextlib.suppress(OSError):
            cgroup.rmdir()
    shim.remove_remains(str(directory))
