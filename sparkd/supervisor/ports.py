"""What the supervisor needs from the machine, as Protocols; `sparkd.host` satisfies them.

Nothing here decides when an instance lives: only `sparkd.supervisor.owner` does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from sparkd.core.catalogue import LaunchSpec, Model
from sparkd.core.failure import Failure
from sparkd.core.instance import InstanceId
from sparkd.core.memory import MemoryView
from sparkd.core.quantities import Seconds

#: Called with each line the engine prints, without its newline.
LineSink = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """An instance as the gateway sees it: HTTP/1.1 on a unix socket."""

    socket_path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineExit:
    """How an engine was lost: the end of its main process or of a vital one (`note` says which)."""

    exit_status: int | None = None
    signal: int | None = None
    note: str = ""


class Engine(Protocol):
    """One launched engine, from the first process to the last."""

    @property
    def upstream(self) -> Upstream: ...

    async def wait_lost(self) -> EngineExit:
        """Returns within 100 ms of the death of a process that the engine cannot live without.

        Also after a stop that was asked for. Any number of callers.
        """
        ...

    async def wait_gone(self) -> None:
        """Returns when nothing is left: no descendant, socket, temporary file or shared memory.

        Once the engine is lost, what remains of it is killed without being asked.
        """
        ...

    def watch_vital(self) -> None:
        """Called once when the engine is ready: from then on losing EngineCore is losing it."""
        ...

    def stop(self, grace: Seconds) -> None:
        """SIGTERM now, SIGKILL to everything after `grace`; 0 kills at once. Returns at once.

        May be called again with a shorter grace. Nothing happens if the engine is already gone.
        """
        ...

    def log_tail(self) -> tuple[str, ...]:
        """The last lines it printed (at most 200), oldest first."""
        ...


class Launcher(Protocol):
    """Turns a model into a running engine."""

    async def check(self, launch: LaunchSpec) -> None:
        """Raises ModelUnavailableError, naming the cure, when weights or runtime are missing.

        Changes nothing and takes milliseconds: it runs before anything is scheduled.
        """
        ...

    async def start(self, instance: InstanceId, model: Model, on_line: LineSink) -> Engine:
        """The engine's process exists when this returns.

        Raises HostError when it cannot be created. Then, and when cancelled, nothing is left.
        """
        ...

    async def close(self) -> None:
        """Kills what still runs and returns when nothing is left."""
        ...


class Readiness(Protocol):
    """Decides when an engine can serve: `/health`, then one token (or the task's equivalent)."""

    async def wait_ready(self, upstream: Upstream, model: Model) -> None:
        """Returns when the engine answers; never gives up: the supervisor has the deadline."""
        ...


class MemoryProbe(Protocol):
    """Reads the memory pool."""

    async def read(self) -> MemoryView: ...


#: Names a failure from how the engine ended and what it printed: (exit, log tail, had been ready).
Classifier = Callable[[EngineExit, tuple[str, ...], bool], Failure]
