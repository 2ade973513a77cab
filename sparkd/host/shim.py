"""The shim: one small process per instance, between the daemon and the engine.

It is run by path (`python -I -S shim.py ...`), so it imports nothing but a few fast modules of the
standard library, and nothing of sparkd. It exists because vLLM leaves things behind: killing its
API server orphans EngineCore with all its memory, and every exit leaves files. As the subreaper of
all descendants the shim sees each of them until it is dead, whatever they fork or detach.

    shim.py CONTROL_FD LOCK_FD DIRECTORY CGROUP|- ENGINE_ARGV...

CONTROL is a stream socket to the daemon. Its end is the lifeline: when the daemon dies, by kill -9
too, the shim kills everything, cleans up and ends. (PR_SET_PDEATHSIG would not do: it fires when
the *thread* that forked ends.) LOCK is held while the shim lives; nothing else may clean DIRECTORY.

Over 400 lines, because it can import nothing that it could be split into.

    daemon says   ready | stop SECONDS
    shim says     started PID | failed ERRNO | exited STATUS | signalled SIGNAL | gone

Source: prctl(2), proc(5), cgroup-v2.rst of Linux 6.x; vLLM 0.32.0 (2026-11).
"""
# pathlib and contextlib would add half of what the start costs:
# ruff: noqa: PTH101, PTH114, PTH118, PTH123, PTH208, SIM105

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import sys
import time

# An ordinary import elsewhere, an annotation here: `collections.abc` is not loaded for it.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import TypeVar

    T = TypeVar("T")

MARK = "SPARKD_INSTANCE"  # in the environment of every process of an instance: its directory
BEFORE = "shm0"  # the same, of what was there before the instance and is not its own
NOTES = "shm"  # in the directory: what is mapped of shared memory, "INODE NAME" a line
SHARED_MEMORY = "/dev/shm/"  # noqa: S108  where POSIX puts it, not a temporary file
_SHARED_NAMES = ("psm_", "sem.mp-", "vllm_dist_")

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_IN_CREATE = 0x100
_FIRST_WATCH = 1
_LONGEST_WAIT = 3600.0  # s; poll(2) takes milliseconds in an int
_SAMPLE_EVERY = 1.0  # s, while the engine starts: a crash leaves no time to look
_MAPPED_AFTER = 0.02  # s from a new file in shared memory to its mapping
FREEZE_ROUNDS = 50  # at most, until no process is new
_RETRY = (0.002, 0.01, 0.05, 0.2, 0.2, 0.2, 1.0)  # s between two rounds of killing
# Of asm-generic/unistd.h, the same on every machine that Linux 5.3 runs on.
_SYS_PIDFD_SEND_SIGNAL = 424
_SYS_PIDFD_OPEN = 434

_libc = ctypes.CDLL(None, use_errno=True)


class Process:
    """One line of /proc: `start` (clock ticks since boot) tells it from a later one of its pid."""

    __slots__ = ("parent", "pid", "session", "start", "state")

    def __init__(self, pid: int, state: str, parent: int, session: int, start: int):
        self.pid = pid
        self.state = state
        self.parent = parent
        self.session = session
        self.start = start


def become_subreaper() -> None:
    """From now on orphaned descendants become children of this process instead of init's."""
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become a subreaper")


def process(pid: int) -> Process | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            data = file.read()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    if b")" not in data:  # it ended while it was read
        return None
    # The name in parentheses may hold anything, parentheses and blanks too.
    rest = data[data.rindex(b")") + 2 :].split()
    return Process(pid, rest[0].decode(), int(rest[1]), int(rest[3]), int(rest[19]))


def processes() -> list[Process]:
    """All that this process may see, zombies too. Raises OSError rather than miss one."""
    found = (process(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return [one for one in found if one is not None]


def descendants(root: int) -> list[Process]:
    """Parents before children; `root` is not among them."""
    below: dict[int, list[Process]] = {}
    for one in processes():
        below.setdefault(one.parent, []).append(one)
    found: list[Process] = list(below.get(root, ()))
    for one in found:  # grows while it is walked
        found.extend(below.get(one.pid, ()))
    return found


def children() -> list[int]:
    """Of the main thread, which orphans come to too; empty where the kernel does not list them."""
    me = os.getpid()
    try:
        with open(f"/proc/{me}/task/{me}/children") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def kill(target: Process) -> None:
    _signal(target, signal.SIGKILL)


def freeze(target: Process) -> None:
    """From now on it makes nothing more that would have to be found."""
    _signal(target, signal.SIGSTOP)


def _signal(target: Process, number: int) -> None:
    """To exactly this process: a pid that was reused meanwhile is left alone."""
    try:
        handle = pidfd_open(target.pid)
    except ProcessLookupError:
        return
    except OSError:  # no descriptor is free, or a sandbox forbids pidfds
        handle = -1
    try:
        again = process(target.pid)
        if again is None or again.start != target.start:
            return
        if handle < 0:
            os.kill(target.pid, number)
        else:
            _check(_libc.syscall(_SYS_PIDFD_SEND_SIGNAL, handle, number, None, 0))
    except OSError:  # it has ended, or changed its user
        pass
    finally:
        if handle >= 0:
            os.close(handle)


def pidfd_open(pid: int) -> int:
    """Python's own is missing where it was built with the headers of an older kernel."""
    return _check(_libc.syscall(_SYS_PIDFD_OPEN, pid, 0))


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def kill_cgroup(cgroup: str) -> bool:
    """Kills all of a cgroup at once, where the kernel (5.14) and its owner allow it."""
    try:
        with open(cgroup + "/cgroup.kill", "w") as file:
            file.write("1")
    except OSError:
        return False
    return True


# --- shared memory and files -----------------------------------------------------------------


def mapped(pid: int) -> set[int]:
    """The inodes in shared memory that this process maps.

    Not the names: glibc makes a semaphore under another one, its maker maps `sem.XYZ (deleted)`.
    """
    found = set()
    try:
        with open(f"/proc/{pid}/maps", "rb") as file:
            for line in file:
                if b" /dev/shm/" in line:
                    found.add(int(line.split(None, 5)[4]))
    except OSError:  # gone, or another user's
        pass
    return found


def in_shared_memory() -> dict[int, str]:
    """Inode and name of the files of this user that may be an engine's."""
    found = {}
    me = os.geteuid()
    try:
        with os.scandir(SHARED_MEMORY) as entries:
            for entry in entries:
                if entry.name.startswith(_SHARED_NAMES):
                    status = entry.stat(follow_symlinks=False)
                    if status.st_uid == me:
                        found[status.st_ino] = entry.name
    except OSError:  # gone while it was read, or there is no shared memory
        pass
    return found


def note(directory: str, inodes: Iterable[int]) -> set[int]:
    """Keeps, for whoever cleans up after the instance, what it maps. Returns what it could name.

    With its name: inodes begin again at each boot, and then name another program's memory.
    """
    wanted = set(inodes)
    there = in_shared_memory()
    named = {inode: name for inode, name in there.items() if inode in wanted}
    _append(os.path.join(directory, NOTES), named)
    return set(named)


def _append(path: str, files: dict[int, str]) -> None:
    if not files:
        return
    try:
        with open(path, "a") as file:
            file.writelines(f"{inode} {name}\n" for inode, name in files.items())
    except OSError:  # a full disk must not keep anybody from killing
        pass


def _tell_of_new_files() -> int:
    """An inotify descriptor on shared memory; -1 where the kernel has none to give."""
    fd: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if fd >= 0 and _libc.inotify_add_watch(fd, SHARED_MEMORY.encode(), _IN_CREATE) < 0:
        os.close(fd)
        return -1
    return fd


def remove_remains(directory: str) -> None:
    """Unlinks what the instance left in shared memory, then its directory. Nothing may run in it.

    A file that another living process maps stays.
    """
    _unlink_shared(_left_in_shared_memory(directory))
    for parent, directories, _ in os.walk(directory):
        for name in directories:  # before it is entered, which needs these rights
            path = os.path.join(parent, name)
            if not os.path.islink(path):
                _quietly(lambda it: os.chmod(it, 0o700), path)
    for parent, directories, files in os.walk(directory, topdown=False):
        for name in files:
            _quietly(os.unlink, os.path.join(parent, name))
        for name in directories:
            path = os.path.join(parent, name)
            _quietly(os.unlink if os.path.islink(path) else os.rmdir, path)
    _quietly(os.rmdir, directory)


def _left_in_shared_memory(directory: str) -> dict[int, str]:
    """Inode and name of what was noted and is still there."""
    noted = _lines(os.path.join(directory, NOTES)) - _lines(os.path.join(directory, BEFORE))
    there = in_shared_memory().items() if noted else ()
    return {inode: name for inode, name in there if f"{inode} {name}".encode() in noted}


def _lines(path: str) -> set[bytes]:
    try:
        with open(path, "rb") as file:
            return set(file.read().split(b"\n"))
    except OSError:
        return set()


def _unlink_shared(left: dict[int, str]) -> None:
    if not left:
        return
    in_use = set()
    try:
        for one in processes():
            in_use |= mapped(one.pid)
    except OSError:  # cannot tell
        return
    for inode, name in left.items():
        if inode not in in_use:
            _quietly(os.unlink, SHARED_MEMORY + name)


def _quietly(action: Callable[[T], object], subject: T) -> None:
    try:
        action(subject)
    except OSError:
        pass


# --- the process itself ----------------------------------------------------------------------


class Shim:
    """Starts the engine, watches it and the daemon, and leaves nothing of it."""

    def __init__(self, control: int, directory: str, cgroup: str | None):
        self._control = control
        self._directory = directory
        self._cgroup = cgroup
        self._main = 0
        self._main_ended = False
        self._cut = False  # the daemon is gone, or this process was told to end
        self._kill_at: float | None = None
        self._sampling = True
        before = in_shared_memory()
        _append(os.path.join(directory, BEFORE), before)
        self._noted = set(before)
        self._pending = b""
        self._wake, wake_write = os.pipe()
        for end in (self._wake, wake_write):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)

    def run(self, argv: list[str]) -> None:
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_sigterm)
        for ignored in (signal.SIGINT, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_IGN)
        become_subreaper()
        try:
            failed = self._spawn(argv)
            if failed:
                self._say(f"failed {failed}")
            else:
                self._say(f"started {self._main}")
                self._watch()
        finally:
            self._finish()

    def _on_sigterm(self, *_: object) -> None:
        self._cut = True

    def _spawn(self, argv: list[str]) -> int:
        """Returns 0, or the errno with which the engine could not be executed."""
        shim = os.getpid()
        try:
            read, write = os.pipe()
            self._main = os.fork()
        except OSError as error:  # the machine has no process or descriptor to give
            return error.errno or errno.EAGAIN
        if self._main == 0:
            _become_engine(argv, shim, write, self._cgroup)
        os.close(write)
        failed = os.read(read, 16)
        os.close(read)
        return int(failed) if failed else 0

    def _watch(self) -> None:
        """Returns when everything that is left has to die."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        new_files = _tell_of_new_files()
        if new_files >= 0:
            poll.register(new_files, select.POLLIN)
        sample_at = time.monotonic() + _SAMPLE_EVERY
        while True:
            if new_files >= 0 and not self._sampling:
                poll.unregister(new_files)
                _libc.inotify_rm_watch(new_files, _FIRST_WATCH)  # closing would wait for the kernel
                new_files = -1
            wait = [sample_at] if self._sampling else []
            wait += [self._kill_at] if self._kill_at is not None else []
            longest = min(wait) - time.monotonic() if wait else _LONGEST_WAIT
            timeout = max(0.0, min(longest, _LONGEST_WAIT)) * 1000 if wait else None
            ready = dict(poll.poll(timeout))
            if self._wake in ready:
                self._empty_wake()
                self._reap()
            if self._control in ready:
                self._listen()
            now = time.monotonic()
            if new_files in ready:
                _quietly(lambda fd: os.read(fd, 65536), new_files)
                sample_at = min(sample_at, now + _MAPPED_AFTER)
            if (
                self._main_ended
                or self._cut
                or (self._kill_at is not None and now >= self._kill_at)
            ):
                return
            if self._sampling and now >= sample_at:
                self._sample()
                sample_at = time.monotonic() + _SAMPLE_EVERY

    def _listen(self) -> None:
        try:
            data = os.read(self._control, 4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._cut = True
            return
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            word, _, argument = line.partition(b" ")
            if word == b"ready":
                self._sampling = False
                self._sample()
            elif word == b"stop":
                self._stop(float(argument))

    def _stop(self, grace: float) -> None:
        self._sampling = False
        deadline = time.monotonic() + grace
        if self._kill_at is None and grace > 0:
            self._sample()
            # To the main process alone: it ends its own children in the right order.
            self._send(signal.SIGTERM)
        if self._kill_at is None or deadline < self._kill_at:
            self._kill_at = deadline

    def _send(self, number: int) -> None:
        if not self._main_ended:  # not reaped, so the pid is still its own
            _quietly(lambda pid: os.kill(pid, number), self._main)  # it may have changed its user

    def _reap(self) -> bool:
        """Takes the ended children; True when there is none left, ended or not."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return False
            if pid == self._main:
                self._main_ended = True
                if os.WIFSIGNALED(status):
                    self._say(f"signalled {os.WTERMSIG(status)}")
                else:
                    self._say(f"exited {os.WEXITSTATUS(status)}")

    def _empty_wake(self) -> None:
        try:
            os.read(self._wake, 4096)
        except BlockingIOError:
            pass

    def _sample(self) -> None:
        """Notes the shared memory that the instance maps, for whoever cleans up after it."""
        new: set[int] = set()
        for one in self._descendants():
            new |= mapped(one.pid) - self._noted
        if new:
            self._noted |= note(self._directory, new)

    def _finish(self) -> None:
        if not self._reap():
            self._freeze_all()
            self._sample()
        self._kill_all()
        if self._cgroup is not None:
            _quietly(os.rmdir, self._cgroup)
        remove_remains(self._directory)
        self._say("gone")

    def _kill_all(self) -> None:
        """Returns when no descendant is left: each orphan becomes a child of this process."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        for pause in _endlessly(_RETRY):
            self._freeze_all()
            if self._cgroup is not None:
                kill_cgroup(self._cgroup)
            _signal_children(signal.SIGKILL)
            if self._reap():
                return
            for one in self._descendants():
                kill(one)
            if self._reap():
                return
            poll.poll(pause * 1000)
            self._empty_wake()

    def _freeze_all(self) -> None:
        """Before any is killed: what forks without end would fill the places of the dead."""
        frozen: set[tuple[int, int]] = set()
        for _ in range(FREEZE_ROUNDS):
            # By a fast way first: a walk through /proc is too slow for who forks and ends.
            _signal_children(signal.SIGSTOP)
            self._reap()
            running = [one for one in self._descendants() if (one.pid, one.start) not in frozen]
            if not running:
                return
            for one in running:
                freeze(one)
                frozen.add((one.pid, one.start))

    def _descendants(self) -> list[Process]:
        """None when the kernel refuses to tell: that must not end the shim before its work."""
        try:
            return descendants(os.getpid())
        except OSError:
            return []

    def _say(self, text: str) -> None:
        try:
            os.write(self._control, text.encode() + b"\n")
        except OSError:  # the daemon is gone; the work is the same
            pass


def _endlessly(pauses: Iterable[float]) -> Iterator[float]:
    last = 0.0
    for last in pauses:
        yield last
    while True:
        yield last


def _signal_children(number: int) -> None:
    """And their process groups: a signal to a group also meets who is being forked into it.

    Until it is reaped a child's pid is its own, and so is its group, which holds descendants alone:
    a group is of one session, and its sessions began with the shim or below it.
    """
    mine = children()
    groups = set()
    for pid in mine:
        _quietly(lambda child: groups.add(os.getpgid(child)), pid)
    for group in groups - {os.getpgrp()}:
        _quietly(lambda it: os.killpg(it, number), group)
    for pid in mine:
        _quietly(lambda child: os.kill(child, number), pid)  # it may have changed its user


def _become_engine(argv: list[str], shim: int, failed: int, cgroup: str | None) -> None:
    """In the forked child: never returns."""
    try:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != shim:  # it died before the line above
            os._exit(127)
        # Ignored signals stay ignored across exec, and Python ignores SIGPIPE.
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.setpgid(0, 0)  # what it does to its process group is not done to the shim
        if cgroup is not None:
            _enter(cgroup)
        os.execvpe(argv[0], argv, os.environ)  # noqa: S606
    except OSError as error:
        os.write(failed, str(error.errno).encode())
    finally:
        os._exit(127)


def _enter(cgroup: str) -> None:
    """Only makes the end faster: an engine without one is better than none."""
    try:
        with open(cgroup + "/cgroup.procs", "w") as file:
            file.write("0")
    except OSError as error:
        os.write(2, f"[sparkd] cannot enter cgroup {cgroup}: {error.strerror}\n".encode())


def main(argv: list[str]) -> None:
    control, lock, directory, cgroup, *engine = argv
    for inherited in (int(control), int(lock)):
        os.set_inheritable(inherited, False)
    os.set_blocking(int(control), False)
    # A daemon that was started with signals blocked passes that on: this would hear of no end.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    Shim(int(control), directory, None if cgroup == "-" else cgroup).run(engine)


if __name__ == "__main__":
    main(sys.argv[1:])
