"""What is true in a test of the core: the models, the machine, every life and every request."""

from __future__ import annotations

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
from sparkd.core.decisions import Drain, Stop
from sparkd.core.failure import Failure, FailureCause
from sparkd.core.instance import InstanceId, TicketId
from sparkd.core.memory import MemoryView, Pool
from sparkd.core.quantities import GIB, Bytes
from sparkd.errors import SparkdError

_RUNTIME = Runtime(
    name="cpu", kind=RuntimeKind.VENV, device=Device.CPU, root="/runtimes/cpu", command=("vllm",)
)
CRASH = Failure(cause=FailureCause.UNKNOWN, detail="it broke", exit_status=0)


def gib(number: float) -> Bytes:
    return Bytes(int(number * GIB))


def a_model(
    name: str,
    budget: float = 4,
    *,
    role: Role = Role.NORMAL,
    revision: int = 0,
    lifecycle: Lifecycle | None = None,
    queue: QueuePolicy | None = None,
) -> Model:
    """`revision` stands for anything that makes another engine."""
    return Model(
        id=ModelId(name),
        launch=LaunchSpec(
            runtime=_RUNTIME, weights=f"/weights/{name}", served_names=(name,),
            args=("--seed", str(revision)),
        ),
        budget=gib(budget),
        role=role,
        lifecycle=lifecycle or Lifecycle(),
        queue=queue or QueuePolicy(),
    )  # fmt: skip


@dataclass(kw_only=True)
class Life:
    """What is true of one instance, whatever the core believes."""

    id: InstanceId
    model: Model
    started_at: float
    ready_at: float | None = None
    in_flight: int = 0
    idle_since: float | None = None
    drained: tuple[float, Drain] | None = None
    stopped: tuple[float, Stop] | None = None
    lost: bool = False
    unload_by: float | None = None  # an operator asked for it, and waits no longer
    unload_now: bool = False

    @property
    def is_leaving(self) -> bool:
        return self.drained is not None or self.is_ending

    @property
    def is_ending(self) -> bool:
        return self.stopped is not None or self.lost

    @property
    def serves(self) -> bool:
        return self.ready_at is not None and not self.is_leaving


@dataclass(kw_only=True)
class Asked:
    """What became of one request."""

    id: TicketId
    model: ModelId
    arrived_at: float
    granted: InstanceId | None = None
    refused: SparkdError | None = None
    cancelled: bool = False
    owed: type[SparkdError] | None = None  # it has to be refused with this in the same step

    @property
    def waits(self) -> bool:
        return self.granted is None and self.refused is None and not self.cancelled


@dataclass(kw_only=True)
class Machine:
    """The memory that is really there. A starting engine has taken nothing yet, the worst case."""

    total: float
    foreign: float = 0  # taken by others than sparkd
    broken: bool = False  # the probe fails
    unreturned: float = 0  # of engines that are gone, but whose memory is not back yet


@dataclass(kw_only=True)
class Rest:
    """How often a model failed in a row, and how long it is left alone for that."""

    failures: int = 0
    until: float = 0.0


@dataclass(kw_only=True)
class Truth:
    """The account that the core's decisions are held against."""

    catalogue: Catalogue
    pool: Pool
    machine: Machine
    lives: dict[InstanceId, Life] = field(default_factory=dict)
    asked: dict[TicketId, Asked] = field(default_factory=dict)
    waiting: dict[TicketId, Asked] = field(default_factory=dict)
    rests: dict[ModelId, Rest] = field(default_factory=dict)
    held: set[ModelId] = field(default_factory=set)
    used_ids: set[InstanceId] = field(default_factory=set)
    closing: float | None = None
    last_exit_at: float | None = None
    reading_asked_at: float | None = None  # of the reading under way
    reading: MemoryView | None = None
    reading_as_of: float | None = None

    def life_of(self, model: ModelId) -> Life | None:
        return next((x for x in self.lives.values() if x.model.id == model), None)

    def waiting_for(self, model: ModelId) -> list[Asked]:
        return [t for t in self.waiting.values() if t.model == model]

    def rest_of(self, model: ModelId) -> Rest:
        return self.rests.setdefault(model, Rest())

    def taken(self) -> int:
        """Really used by the instances: everything a ready one may, nothing by a starting one."""
        return sum(x.model.budget for x in self.lives.values() if x.ready_at is not None)

    def view(self) -> MemoryView | None:
        if self.machine.broken:
            return None
        gone = gib(self.machine.foreign + self.machine.unreturned)
        available = gib(self.machine.total) - gone - self.taken()
        return MemoryView(total=gib(self.machine.total), available=Bytes(max(available, 0)))
