"""A supervisor, logs and a configuration that do what a test says, served like the daemon does."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from aiohttp import web

from sparkd.api.access import Administrators
from sparkd.api.app import make_api
from sparkd.api.ports import ReloadOutcome
from sparkd.core.catalogue import (
    Catalogue,
    Device,
    LaunchSpec,
    Model,
    ModelId,
    Runtime,
    RuntimeKind,
)
from sparkd.core.failure import Failure, FailureCause
from sparkd.core.fleet import Fleet, History, Ticket
from sparkd.core.instance import Instance, InstanceId, Reason, State, TicketId
from sparkd.core.memory import MemoryView, Pool
from sparkd.core.quantities import GIB, Bytes, Instant, Seconds
from sparkd.core.status import state_of
from sparkd.http.runner import listen_unix, make_runner
from sparkd.supervisor.lease import Progress

NOW = Instant(1000.0)
RUNTIME = Runtime(
    name="vllm-cpu", kind=RuntimeKind.VENV, device=Device.CPU, root="/opt/vllm", command=("vllm",)
)


def model(name: str, *aliases: str, gib: int = 24, description: str = "") -> Model:
    launch = LaunchSpec(
        runtime=RUNTIME, weights=f"/weights/{name}", served_names=(name,), max_model_len=4096
    )
    return Model(
        id=ModelId(name),
        launch=launch,
        budget=Bytes(gib * GIB),
        aliases=aliases,
        description=description,
    )


QWEN = model("qwen3-8b", "Qwen/Qwen3-8B", "small", description="a small one")
GEMMA = model("gemma", gib=40)
BROKEN = model("broken", gib=8)
COLD = model("cold-one", gib=1)


def instance(of: Model, state: State, *, started: float, ready: float | None = None) -> Instance:
    """`started` and `ready` are seconds before NOW."""
    return Instance(
        id=InstanceId(f"{of.id}-life"),
        model=of.id,
        launch=of.launch,
        budget=of.budget,
        role=of.role,
        state=state,
        started_at=Instant(NOW - started),
        ready_at=None if ready is None else Instant(NOW - ready),
    )


def empty_fleet() -> Fleet:
    return Fleet(
        catalogue=Catalogue((QWEN, GEMMA, BROKEN, COLD)),
        pool=Pool(limit=Bytes(110 * GIB), reserve=Bytes(8 * GIB)),
        boot="boot",
    )


def busy_fleet() -> Fleet:
    """One model ready and answering, one starting with two waiting, one failed, one cold."""
    ready = replace(instance(QWEN, State.READY, started=800, ready=750), in_flight=2, served=7)
    starting = replace(instance(GEMMA, State.STARTING, started=12), phase="loading weights 40%")
    tickets = (
        Ticket(id=TicketId(1), model=GEMMA.id, arrived_at=Instant(NOW - 12)),
        Ticket(id=TicketId(2), model=GEMMA.id, arrived_at=Instant(NOW - 3)),
    )
    failure = Failure(cause=FailureCause.BAD_FLAG, detail="no such flag: --foo", exit_status=2)
    return replace(
        empty_fleet(),
        instances={ready.id: ready, starting.id: starting},
        tickets={ticket.id: ticket for ticket in tickets},
        histories={
            BROKEN.id: History(failures=3, not_before=Instant(NOW + 25), last_failure=failure)
        },
        memory=MemoryView(total=Bytes(120 * GIB), available=Bytes(50 * GIB)),
    )


@contextmanager
def short_directory() -> Iterator[str]:
    """One that every local user may enter."""
    with tempfile.TemporaryDirectory(prefix="sparkd-") as directory:
        Path(directory).chmod(0o755)
        yield directory


@dataclass
class FakeOperations:
    """Records what it is asked for; `finish` lets waiting loads and unloads return."""

    fleet: Fleet = field(default_factory=busy_fleet)
    failure: Exception | None = None
    is_loaded: bool = True
    finish: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    abandoned: asyncio.Event = field(default_factory=asyncio.Event)
    calls: list[tuple[object, ...]] = field(default_factory=list)

    def now(self) -> Instant:
        return NOW

    def resolve(self, name: str) -> Model:
        return self.fleet.catalogue.resolve(name)

    def progress(self, model_id: ModelId) -> Progress:
        found = self.fleet.instance_of(model_id)
        return Progress(
            state=state_of(self.fleet, model_id, NOW),
            phase=found.phase if found else "",
            position=0,
            waited=Seconds(0.0),
            estimate=Seconds(30.0) if found and found.state is State.STARTING else None,
        )

    async def load(self, model_id: ModelId, *, wait: bool) -> None:
        await self._work(("load", model_id, wait), wait=wait)
        if wait:
            self.become(instance(self.resolve(model_id), State.READY, started=5, ready=0))

    async def unload(self, model_id: ModelId, *, now: bool, wait: bool) -> bool:
        await self._work(("unload", model_id, now, wait), wait=wait)
        left = replace(
            instance(self.resolve(model_id), State.DRAINING, started=50, ready=40),
            reason=Reason.UNLOADED,
        )
        others = {k: i for k, i in self.fleet.instances.items() if i.model != model_id}
        kept = {} if wait or not self.is_loaded else {left.id: left}
        self.fleet = replace(self.fleet, instances={**others, **kept})
        return self.is_loaded

    def become(self, one: Instance) -> None:
        self.fleet = replace(self.fleet, instances={**self.fleet.instances, one.id: one})

    async def _work(self, call: tuple[object, ...], *, wait: bool) -> None:
        self.calls.append(call)
        self.asked.set()
        if self.failure is not None:
            raise self.failure
        try:
            if wait:
                await self.finish.wait()
        except asyncio.CancelledError:
            self.abandoned.set()
            raise


@dataclass
class FakeLogs:
    """Lines of one engine; `followers` is how many listen."""

    lines: list[str] = field(default_factory=lambda: [f"line {n}" for n in range(1, 6)])
    followers: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def tail(self, model: ModelId, lines: int) -> tuple[str, ...]:
        return tuple(self.lines[-lines:]) if lines else ()

    @contextmanager
    def follow(self, model: ModelId) -> Iterator[AsyncIterator[str]]:
        self._count(1)
        try:
            yield self._lines_after(len(self.lines))
        finally:
            self._count(-1)

    def say(self, line: str) -> None:
        self.lines.append(line)
        self._wake()

    async def wait_followers(self, n: int) -> None:
        while self.followers != n:
            await self._changed.wait()

    async def _lines_after(self, seen: int) -> AsyncIterator[str]:
        while True:
            for line in self.lines[seen:]:
                yield line
            seen = len(self.lines)
            await self._changed.wait()

    def _count(self, change: int) -> None:
        self.followers += change
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


@dataclass
class FakeConfiguration:
    outcome: ReloadOutcome = field(default_factory=ReloadOutcome)
    failure: Exception | None = None

    async def reload(self) -> ReloadOutcome:
        if self.failure is not None:
            raise self.failure
        return self.outcome


@dataclass
class FakeDaemon:
    """The control face, served. `die` is the daemon's end."""

    operations: FakeOperations = field(default_factory=FakeOperations)
    logs: FakeLogs = field(default_factory=FakeLogs)
    configuration: FakeConfiguration = field(default_factory=FakeConfiguration)
    path: str = ""
    runner: web.AppRunner | None = None

    @asynccontextmanager
    async def served(self, administrators: Administrators | None = None) -> AsyncIterator[str]:
        # Not tmp_path: a unix socket's path may have 107 bytes only.
        with short_directory() as directory:
            self.path = f"{directory}/control.sock"
            app = make_api(
                self.operations,
                logs=self.logs,
                reload=self.configuration.reload,
                version="9.8.7",
                administrators=administrators,
            )
            self.runner = make_runner(app)
            await self.runner.setup()
            await listen_unix(self.runner, self.path, 0o666)
            try:
                yield self.path
            finally:
                await self.die()

    async def die(self) -> None:
        assert self.runner is not None
        await self.runner.cleanup()
