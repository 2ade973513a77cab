"""The `sparkd` command and the composition root: builds every part, runs them, stops them in order.

The only module that knows all the others. It decides nothing about models: `sparkd.supervisor`
does. Never imports the CLI's libraries.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import resource
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from aiohttp import web

from sparkd import __version__, config
from sparkd.api.app import make_api
from sparkd.api.ports import ReloadOutcome
from sparkd.core.catalogue import Catalogue
from sparkd.core.classify import classify
from sparkd.core.engine import phase_of
from sparkd.core.fleet import Fleet
from sparkd.core.memory import MemoryView, Pool, default_reserve
from sparkd.core.quantities import Bytes, Seconds, format_size
from sparkd.errors import ConfigError, HostError, Problem, SparkdError
from sparkd.gateway.app import make_gateway
from sparkd.host import stderr_log
from sparkd.host.cgroups import delegated_cgroup
from sparkd.host.logs import LogStore
from sparkd.host.memory import HostMemoryProbe
from sparkd.host.processes import ProcessLauncher
from sparkd.host.readiness import HttpReadiness
from sparkd.http.runner import listen_tcp, listen_unix, make_runner
from sparkd.supervisor.life import Machine
from sparkd.supervisor.owner import Supervisor

try:
    import uvloop
except ImportError:  # the data path costs three times the CPU without it
    _new_event_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
else:
    _new_event_loop = uvloop.new_event_loop

log = logging.getLogger("sparkd.daemon")

#: Everybody may connect; the peer's credentials decide what they may do.
_CONTROL_SOCKET_MODE = 0o666
#: No larger one: engines inherit it, and some programs walk through all they might have open.
_OPEN_FILES = 65536


class Daemon:
    """One run of sparkd, from settings to the last engine's end."""

    def __init__(self, loaded: config.Loaded, path: Path | None):
        self._loaded, self._path = loaded, path
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._reload_asked = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._supervisor: Supervisor | None = None
        self._view: MemoryView | None = None

    async def run(self) -> None:
        """Returns after a SIGTERM or SIGINT, when nothing of any engine is left.

        Raises HostError when this machine refuses something that it cannot do without.
        """
        settings = self._loaded.settings
        self._warn(self._loaded.warnings)
        await asyncio.to_thread(_make_directories, settings.paths)
        async with contextlib.AsyncExitStack() as stack:
            self._watch_signals(stack)
            logs = LogStore(settings.paths.state / "logs")
            stack.push_async_callback(logs.close)
            cgroup = await asyncio.to_thread(delegated_cgroup)
            launcher = await ProcessLauncher.open(settings.paths.run, logs, cgroup=cgroup)
            stack.push_async_callback(launcher.close)
            probe = await HostMemoryProbe.open()
            stack.callback(probe.close)
            supervisor = await self._supervise(launcher, probe)
            self._supervisor = await stack.enter_async_context(supervisor)
            await stack.enter_async_context(self._faces(self._supervisor, logs))
            self._supervisor.begin()
            await self._serve(self._supervisor, launcher)

    async def reload(self) -> ReloadOutcome:
        """Reads the configuration again. Raises ConfigError with every problem: nothing changed."""
        assert self._supervisor is not None
        async with self._reloading:
            loaded = await asyncio.to_thread(config.load, self._path)
            before, self._loaded = self._loaded.settings, loaded
            self._supervisor.replace(loaded.settings.catalogue, self._pool(loaded.settings))
            warnings = (*loaded.warnings, *_needs_restart(before, loaded.settings))
            self._warn(warnings)
            return _outcome(before.catalogue, loaded.settings.catalogue, warnings)

    async def _supervise(self, launcher: ProcessLauncher, probe: HostMemoryProbe) -> Supervisor:
        settings = self._loaded.settings
        self._view = await probe.read()
        machine = Machine(
            launcher=launcher, readiness=HttpReadiness(), classify=classify, phase_of=phase_of
        )
        fleet = Fleet(
            catalogue=settings.catalogue, pool=self._pool(settings), boot=secrets.token_hex(3)
        )
        return Supervisor(fleet, machine, probe)

    def _pool(self, settings: config.Settings) -> Pool:
        assert self._view is not None
        total, memory = self._view.total, settings.memory
        reserve = default_reserve(total) if memory.reserve is None else memory.reserve
        limit = Bytes(total - reserve) if memory.limit is None else memory.limit
        log.info("Memory: models may take %s of %s", format_size(limit), format_size(total))
        return Pool(limit=limit, reserve=reserve)

    @contextlib.asynccontextmanager
    async def _faces(self, supervisor: Supervisor, logs: LogStore) -> AsyncIterator[None]:
        server = self._loaded.settings.server
        gateway = make_gateway(
            supervisor,
            started_utc=time.time(),
            max_body=server.max_body,
            comment_interval=server.loading_comment_interval,
        )
        control = make_api(supervisor, logs=logs, reload=self.reload, version=__version__)
        async with _running(gateway) as gateway_runner, _running(control) as control_runner:
            await listen_unix(control_runner, str(server.control_socket), _CONTROL_SOCKET_MODE)
            for address in server.listen:
                port = await listen_tcp(gateway_runner, address.host, address.port)
                log.info("Listening on http://%s:%d", address.host, port)
            log.info("Control socket %s", server.control_socket)
            yield

    async def _serve(self, supervisor: Supervisor, launcher: ProcessLauncher) -> None:
        """Until a signal says stop; then running answers end, or are told at the deadline."""
        async with asyncio.TaskGroup() as group:
            reloads = group.create_task(self._reload_on_signal(), name="reload on SIGHUP")
            await self._stop.wait()
            reloads.cancel("the daemon stops")
            timeout = self._loaded.settings.server.drain_timeout
            log.info("Stopping; running answers have %g s to end", timeout)
            hurry = group.create_task(self._hurry_up(supervisor, launcher), name="hurry")
            await supervisor.shut_down(timeout)
            hurry.cancel("all is gone")
        log.info("Stopped")

    async def _reload_on_signal(self) -> None:
        while True:
            await self._reload_asked.wait()
            self._reload_asked.clear()
            try:
                await self.reload()
            except ConfigError as error:
                log.error("%s", error)  # noqa: TRY400 - the operator's mistake, not a traceback
            except Exception:  # running answers are worth more than a new configuration
                log.exception("Cannot read the configuration again")

    async def _hurry_up(self, supervisor: Supervisor, launcher: ProcessLauncher) -> None:
        await self._hurry.wait()
        log.info("Told twice: stopping at once")
        async with asyncio.TaskGroup() as group:  # in this order: clients are told, engines killed
            group.create_task(supervisor.shut_down(Seconds(0.0)), name="cut all answers")
            group.create_task(launcher.close(), name="kill all engines")

    def _watch_signals(self, stack: contextlib.AsyncExitStack) -> None:
        loop = asyncio.get_running_loop()
        actions: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGTERM: self._stop_asked,
            signal.SIGINT: self._stop_asked,
            signal.SIGHUP: self._reload_asked.set,
        }
        for number, action in actions.items():
            loop.add_signal_handler(number, action)
            stack.callback(loop.remove_signal_handler, number)

    def _stop_asked(self) -> None:
        (self._hurry if self._stop.is_set() else self._stop).set()

    def _warn(self, problems: Sequence[Problem]) -> None:
        for problem in problems:
            log.warning("%s", problem)


@contextlib.asynccontextmanager
async def _running(app: web.Application) -> AsyncIterator[web.AppRunner]:
    runner = make_runner(app)
    await runner.setup()
    try:
        yield runner
    finally:
        await runner.cleanup()


def _make_directories(paths: config.PathSettings) -> None:
    # Others may read the status: the way to the control socket is open. Instances' own
    # directories inside are closed by the launcher; the state has what engines printed.
    for directory, mode in ((paths.state, 0o750), (paths.run, 0o755)):
        try:
            directory.mkdir(mode=mode, parents=True, exist_ok=True)
        except OSError as error:
            raise HostError(
                f"cannot make the directory {directory}: {error.strerror}",
                hint="run as the user who owns it, or change [paths] in sparkd.toml",
            ) from error


def _needs_restart(old: config.Settings, new: config.Settings) -> tuple[Problem, ...]:
    pairs = {
        "server": (old.server, new.server),
        "log": (old.log, new.log),
        "paths.state": (old.paths.state, new.paths.state),
        "paths.run": (old.paths.run, new.paths.run),
    }
    return tuple(
        Problem(where=key, message="changed, and takes effect when sparkd is restarted")
        for key, (before, after) in pairs.items()
        if before != after
    )


def _outcome(old: Catalogue, new: Catalogue, warnings: Sequence[Problem]) -> ReloadOutcome:
    before, after = {m.id: m for m in old}, {m.id: m for m in new}
    return ReloadOutcome(
        changed=tuple(i for i in after if i in before and after[i] != before[i]),
        added=tuple(i for i in after if i not in before),
        removed=tuple(i for i in before if i not in after),
        warnings=tuple(warnings),
    )


# The command --------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> None:
    """Exit status: 0 stopped as asked, 1 cannot start or configuration wrong, 2 usage."""
    arguments = _parser().parse_args(argv)
    path: Path | None = arguments.config
    try:
        if arguments.command == "check":
            _check(path)
        else:
            _serve(path)
    except ConfigError as error:
        sys.exit(str(error))
    except SparkdError as error:
        sys.exit(f"sparkd: {error.sentence()}")
    except KeyboardInterrupt:
        sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sparkd", description="Serves vLLM models on demand.")
    parser.add_argument("--version", action="version", version=f"sparkd {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("serve", "run the daemon in the foreground"),
        ("check", "read the configuration and list every mistake"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument(
            "--config",
            type=Path,
            metavar="FILE",
            help=f"the daemon's file (default: {config.DEFAULT_PATH})",
        )
    return parser


def _check(path: Path | None) -> None:
    loaded = config.load(path, strict=True)
    for problem in loaded.warnings:
        sys.stdout.write(f"warning: {problem}\n")
    count = len(loaded.settings.catalogue)
    sys.stdout.write(f"{count} model{'' if count == 1 else 's'}, no mistakes\n")


def _serve(path: Path | None) -> None:
    loaded = config.load(path)
    settings = loaded.settings.log
    stderr_log.set_up(settings.level, as_json=settings.format is config.LogFormat.JSON)
    _allow_many_files()
    with asyncio.Runner(loop_factory=_new_event_loop) as runner:
        runner.run(_run(loaded, path))


def _allow_many_files() -> None:
    """Two descriptors for each request: the usual soft limit of 1024 would refuse the 500th."""
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = _OPEN_FILES if most == resource.RLIM_INFINITY else min(_OPEN_FILES, most)
    if soft != resource.RLIM_INFINITY and soft < enough:
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, most))


async def _run(loaded: config.Loaded, path: Path | None) -> None:
    await Daemon(loaded, path).run()
