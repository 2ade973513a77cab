"""A machine without processes: engines that start, die and stop as a test says, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from sparkd.core.catalogue import (
    Catalogue,
    Device,
    LaunchSpec,
    Lifecycle,
    Model,
    ModelId,
    QueuePolicy,
    Role,
    Runtime,
    RuntimeKind,
)
from sparkd.core.failure import Failure, FailureCause
from sparkd.core.fleet import Fleet
from sparkd.core.instance import InstanceId
from sparkd.core.memory import MemoryView, Pool
from sparkd.core.quantities import GIB, Bytes, Seconds
from sparkd.errors import HostError, SparkdError
from sparkd.supervisor.life import Machine
from sparkd.supervisor.owner import Supervisor
from sparkd.supervisor.ports import Engine, EngineExit, LineSink, Upstream

RUNTIME = Runtime(
    name="fake", kind=RuntimeKind.VENV, device=Device.CPU, root="/fake", command=("/fake/vllm",)
)


def model(
    name: str,
    gib: float = 1.0,
    *,
    role: Role = Role.NORMAL,
    lifecycle: Lifecycle | None = None,
    queue: QueuePolicy | None = None,
    args: tuple[str, ...] = (),
) -> Model:
    return Model(
        id=ModelId(name),
        launch=LaunchSpec(runtime=RUNTIME, weights=f"/w/{name}", served_names=(name,), args=args),
        budget=Bytes(int(gib * GIB)),
        role=role,
        lifecycle=lifecycle or Lifecycle(),
        queue=queue or QueuePolicy(),
    )


class FakeEngine:
    """Ready after `start_seconds`, gone `stop_seconds` after it was stopped or lost."""

    def __init__(self, launcher: FakeLauncher, instance: InstanceId, name: ModelId):
        self.instance, self.model = instance, name
        self.upstream = Upstream(socket_path=f"/fake/{instance}")
        self.stopped_with: list[Seconds] = []
        self.vital_watched = False
        self._launcher = launcher
        self._lost: asyncio.Future[EngineExit] = asyncio.get_running_loop().create_future()
        self._gone = asyncio.Event()

    async def wait_lost(self) -> EngineExit:
        return await asyncio.shield(self._lost)

    async def wait_gone(self) -> None:
        await self._gone.wait()

    def watch_vital(self) -> None:
        self.vital_watched = True

    def stop(self, grace: Seconds) -> None:
        self.stopped_with.append(grace)
        self.die(EngineExit(signal=15))

    def log_tail(self) -> tuple[str, ...]:
        return ("a line", "ValueError: the cause")

    def die(self, how: EngineExit) -> None:
        if not self._lost.done():
            self._lost.set_result(how)
            loop = asyncio.get_running_loop()
            loop.call_later(self._launcher.stop_seconds, self._end)

    def _end(self) -> None:
        self._launcher.running.remove(self)
        self._gone.set()


@dataclass
class FakeLauncher:
    """Keeps what happened; a model in `refusals` cannot be launched, one in `missing` not found."""

    start_seconds: dict[str, float] = field(default_factory=dict)
    stop_seconds: float = 2.0
    launched: list[FakeEngine] = field(default_factory=list)
    running: list[FakeEngine] = field(default_factory=list)
    refusals: dict[str, HostError] = field(default_factory=dict)
    missing: dict[str, SparkdError] = field(default_factory=dict)
    sinks: dict[InstanceId, LineSink] = field(default_factory=dict)
    on_launch: Callable[[FakeEngine], None] | None = None

    async def check(self, launch: LaunchSpec) -> None:
        await asyncio.sleep(0)
        if (error := self.missing.get(launch.served_names[0])) is not None:
            raise error

    async def start(self, instance: InstanceId, model: Model, on_line: LineSink) -> Engine:
        await asyncio.sleep(0.01)
        if (error := self.refusals.get(model.id)) is not None:
            raise error
        engine = FakeEngine(self, instance, model.id)
        self.launched.append(engine)
        self.running.append(engine)
        self.sinks[instance] = on_line
        if self.on_launch is not None:
            self.on_launch(engine)
        return engine

    async def close(self) -> None:
        for engine in list(self.running):
            engine.stop(Seconds(0.0))

    async def wait_ready(self, upstream: Upstream, model: Model) -> None:
        """Also the readiness probe: a model is ready when its start time has passed."""
        await asyncio.sleep(self.start_seconds.get(model.id, 10.0))

    def engine_of(self, name: str) -> FakeEngine:
        return next(e for e in self.running if e.model == name)

    def names(self) -> list[str]:
        """Models in the order in which they were launched."""
        return [e.model for e in self.launched]


@dataclass
class FakeProbe:
    """A pool of 100 GiB with as much available as the test says."""

    available: int = 100 * GIB
    fails: bool = False
    reads: int = 0

    async def read(self) -> MemoryView:
        self.reads += 1
        await asyncio.sleep(0)
        if self.fails:
            raise OSError(5, "no answer")
        return MemoryView(total=Bytes(100 * GIB), available=Bytes(self.available))


def classify(exit_: EngineExit, tail: tuple[str, ...], was_ready: bool) -> Failure:
    cause = FailureCause.ENGINE_DIED if was_ready else FailureCause.UNKNOWN
    return Failure(
        cause=cause,
        detail=tail[-1],
        exit_status=exit_.exit_status,
        signal=exit_.signal,
        log_tail=tail,
    )


def make_supervisor(
    *models: Model,
    limit_gib: float = 10.0,
    launcher: FakeLauncher | None = None,
    probe: FakeProbe | None = None,
) -> tuple[Supervisor, FakeLauncher]:
    launcher = launcher or FakeLauncher()
    fleet = Fleet(
        catalogue=Catalogue(models),
        pool=Pool(limit=Bytes(int(limit_gib * GIB)), reserve=Bytes(0)),
        boot="boot",
    )
    machine = Machine(
        launcher=launcher,
        readiness=launcher,
        classify=classify,
        phase_of=lambda line: line.removeprefix("phase ") if line.startswith("phase ") else None,
    )
    return Supervisor(fleet, machine, probe or FakeProbe()), launcher
