"""The launcher `processes`: engines as children of the daemon, each behind a shim of its own.

Decides nothing about when an engine lives. What must survive the daemon does not belong here.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import logging
import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sparkd.core import engine as vllm
from sparkd.core.catalogue import LaunchSpec, Model
from sparkd.core.instance import InstanceId
from sparkd.core.quantities import Seconds
from sparkd.errors import HostError
from sparkd.host import remains, runtimes, shim
from sparkd.host.engines import ProcessEngine, Spawned, socket_in
from sparkd.host.logs import LogStore
from sparkd.supervisor.ports import LineSink

_log = logging.getLogger(__name__)

# All that an engine sees of the daemon's environment; the rest is its runtime's and its model's.
_PASSED = re.compile(
    r"PATH|HOME|USER|LOGNAME|LANG|LANGUAGE|LC_\w+|TZ|LD_LIBRARY_PATH|HF_HOME|HF_HUB_CACHE"
    r"|XDG_CACHE_HOME|VLLM_CACHE_ROOT|CUDA_\w+|NVIDIA_\w+|OMP_NUM_THREADS"
)
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW")  # NVIDIA_API_KEY is a common one
_PIPE_SIZE = 256 * 1024  # an engine that prints a traceback must not wait for the daemon
_ID_LENGTH = 12  # of a directory's name: socket paths are short


class ProcessLauncher:
    """Satisfies `sparkd.supervisor.ports.Launcher`. Made by `open`."""

    def __init__(self, run_dir: Path, logs: LogStore, cgroup: Path | None):
        self._instances = run_dir / "i"
        self._logs = logs
        self._cgroup = cgroup
        self._engines: set[ProcessEngine] = set()
        self._spawning: set[asyncio.Future[Spawned]] = set()
        self._closed = False

    @classmethod
    async def open(
        cls, run_dir: Path, logs: LogStore, *, cgroup: Path | None = None
    ) -> ProcessLauncher:
        """Removes what earlier daemons left in `run_dir`. `cgroup`: a delegated one, if any.

        Makes this process the subreaper of its descendants: orphans of a killed shim come to it.
        """
        launcher = cls(run_dir, logs, cgroup)
        try:
            await asyncio.to_thread(launcher._prepare)
        except OSError as error:
            raise HostError(
                f"cannot prepare the run directory '{run_dir}': {error}",
                hint="it must be on a local disk and belong to the user who runs sparkd",
            ) from error
        return launcher

    def _prepare(self) -> None:
        # Engines run elsewhere, and their sockets are named to them.
        self._instances = self._instances.absolute()
        self._instances.mkdir(mode=0o700, parents=True, exist_ok=True)
        _close_to_others(self._instances)
        shim.become_subreaper()
        remains.sweep(self._instances)

    async def check(self, launch: LaunchSpec) -> None:
        await asyncio.to_thread(runtimes.check, launch)

    async def start(self, instance: InstanceId, model: Model, on_line: LineSink) -> ProcessEngine:
        if self._closed:
            raise HostError(f"cannot start model '{model.id}': the launcher is closed")
        loop = asyncio.get_running_loop()
        spawning = loop.run_in_executor(None, self._spawn, instance, model.launch)
        self._spawning.add(spawning)
        sink = _both(on_line, functools.partial(self._logs.append, model.id))
        try:
            await asyncio.shield(spawning)
        except asyncio.CancelledError:
            await self._abandon(spawning, sink)
            raise
        except OSError as error:
            raise _cannot_start(model, error) from error
        finally:
            self._spawning.discard(spawning)
        engine = self._adopt(spawning.result(), sink)
        try:
            await engine.wait_started()
        except asyncio.CancelledError:
            engine.stop(Seconds(0))
            await _whatever_happens(engine.gone)
            raise
        except OSError as error:
            await _whatever_happens(engine.gone)
            raise _cannot_start(model, error) from error
        self._note_life(instance, model, engine)
        return engine

    def _note_life(self, instance: InstanceId, model: Model, engine: ProcessEngine) -> None:
        """A model's log has many lives: it shows where each begins and ends."""
        note = functools.partial(self._logs.append, model.id)
        note(f"[sparkd] instance {instance} started, pid {engine.main_pid}")
        engine.gone.add_done_callback(lambda _: note(f"[sparkd] instance {instance} is gone"))

    async def close(self) -> None:
        self._closed = True
        for engine in self._engines:
            engine.stop(Seconds(0))
        while self._engines or self._spawning:
            if self._spawning:  # `start` adopts what it made, and ends it at once
                await asyncio.wait(self._spawning)
                await asyncio.sleep(0)
            else:
                await next(iter(self._engines)).wait_gone()

    async def _abandon(self, spawning: asyncio.Future[Spawned], sink: LineSink) -> None:
        """A cancelled start: the thread cannot be stopped, so what it made is ended after it."""
        await _whatever_happens(spawning)
        if spawning.exception() is None:
            engine = self._adopt(spawning.result(), sink)
            engine.stop(Seconds(0))
            await _whatever_happens(engine.gone)

    def _adopt(self, spawned: Spawned, sink: LineSink) -> ProcessEngine:
        engine = ProcessEngine(spawned, sink)
        self._engines.add(engine)
        engine.gone.add_done_callback(lambda _: self._engines.discard(engine))
        if self._closed:
            engine.stop(Seconds(0))
        return engine

    def _spawn(self, instance: InstanceId, launch: LaunchSpec) -> Spawned:
        """Blocks for some milliseconds. Raises OSError or HostError; then nothing is left."""
        with contextlib.ExitStack() as undo:
            directory, lock = self._make_directory(instance)
            undo.callback(lock.close)
            undo.callback(shim.remove_remains, str(directory))
            temporary = directory / "t"
            temporary.mkdir(mode=0o700)
            command = vllm.render(
                launch, socket_path=str(socket_in(directory)), private_dir=str(temporary)
            )
            cgroup = self._make_cgroup(directory.name, undo)
            channels = undo.enter_context(_Channels())
            process = subprocess.Popen(
                _shim_argv(channels.theirs, lock.fd, directory, cgroup, command.argv),
                env={**_passed(os.environ), **command.env, shim.MARK: os.path.realpath(directory)},
                cwd=temporary,
                stdin=subprocess.DEVNULL,
                stdout=channels.output_write,
                stderr=channels.output_write,
                pass_fds=(channels.theirs.fileno(), lock.fd),
                start_new_session=True,
            )
            undo.pop_all()
            lock.close()
            control, output = channels.keep()
            return Spawned(
                shim=process, control=control, output=output, directory=directory, cgroup=cgroup
            )

    def _make_directory(self, instance: InstanceId) -> tuple[Path, remains.Lock]:
        name = re.sub(r"[^A-Za-z0-9_-]", "", instance)[:_ID_LENGTH]
        directory = self._instances / name
        with remains.turn(self._instances, fcntl.LOCK_SH):
            for number in range(1, 100):
                with contextlib.suppress(FileExistsError):
                    directory.mkdir(mode=0o700)
                    return directory, _locked(directory)
                directory = self._instances / f"{name}.{number}"
        raise FileExistsError(f"directories for '{name}' exist already in {self._instances}")

    def _make_cgroup(self, name: str, undo: contextlib.ExitStack) -> Path | None:
        if self._cgroup is None:
            return None
        cgroup = self._cgroup / name
        try:
            cgroup.mkdir()
        except OSError as error:  # it only makes the end faster
            _log.warning("cannot make a cgroup for an engine: %s", error)
            return None
        undo.callback(cgroup.rmdir)
        return cgroup


def _locked(directory: Path) -> remains.Lock:
    try:
        lock = remains.take_lock(directory)
        assert lock is not None, "a directory just made is in use"
    except BaseException:
        shim.remove_remains(str(directory))
        raise
    return lock


def _close_to_others(directory: Path) -> None:
    """What is swept and connected to must be of this user's making."""
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(f"{directory} is not a directory")
    if status.st_uid != os.geteuid():
        raise PermissionError(f"{directory} belongs to user {status.st_uid}")
    directory.chmod(0o700)


class _Channels:
    """A control socket and an output pipe; closes all ends but those that are kept."""

    def __enter__(self) -> _Channels:
        self._ours, self.theirs = socket.socketpair()
        try:
            self._output_read, self.output_write = os.pipe()
        except OSError:
            self._ours.close()
            self.theirs.close()
            raise
        with contextlib.suppress(OSError):  # the user's pipe quota is used up
            fcntl.fcntl(self.output_write, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        os.set_blocking(self._output_read, False)
        self._ours.setblocking(False)
        return self

    def keep(self) -> tuple[socket.socket, int]:
        self.theirs.close()
        os.close(self.output_write)
        return self._ours, self._output_read

    def __exit__(self, *_: object) -> None:
        self.keep()
        self._ours.close()
        os.close(self._output_read)


def _shim_argv(
    control: socket.socket, lock: int, directory: Path, cgroup: Path | None, engine: tuple[str, ...]
) -> list[str]:
    # -I and -S: nothing of the engine's environment or of site-packages reaches the shim.
    python = [sys.executable, "-I", "-S", shim.__file__]
    group = "-" if cgroup is None else str(cgroup)
    return [*python, str(control.fileno()), str(lock), str(directory), group, *engine]


def _passed(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if _PASSED.fullmatch(name) and not _SECRET.search(name)
    }


def _both(first: Callable[[str], None], second: Callable[[str], None]) -> LineSink:
    def sink(line: str) -> None:
        first(line)
        second(line)

    return sink


async def _whatever_happens(future: asyncio.Future[Any]) -> None:
    """Waits for the end even if cancelled again: leaving earlier would leave processes."""
    while not future.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([future])


def _cannot_start(model: Model, error: OSError) -> HostError:
    why = error.strerror or str(error)
    if error.filename is not None:  # ours: what the engine's program met has no name
        return HostError(
            f"cannot start model '{model.id}': {error.filename}: {why}",
            hint="its run directory must be there, and belong to the user who runs sparkd",
        )
    program = model.launch.runtime.command[0]
    return HostError(
        f"cannot start model '{model.id}': {program}: {why}",
        hint=f"`sparkd check` shows what is wrong with runtime '{model.launch.runtime.name}'",
    )
