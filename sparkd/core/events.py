"""What happened: facts that the supervisor gives to the fleet. Named in the past. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from sparkd.core.catalogue import Catalogue, ModelId
from sparkd.core.failure import Failure
from sparkd.core.instance import InstanceId, TicketId
from sparkd.core.memory import MemoryView, Pool
from sparkd.core.quantities import Instant


@dataclass(frozen=True, slots=True)
class RequestArrived:
    """Someone wants a lease on a model and waits for it."""

    ticket: TicketId
    model: ModelId


@dataclass(frozen=True, slots=True)
class RequestCancelled:
    """The one who waited has gone; nothing was granted."""

    ticket: TicketId


@dataclass(frozen=True, slots=True)
class RequestEnded:
    """A granted lease was given back."""

    instance: InstanceId


@dataclass(frozen=True, slots=True)
class PhaseReached:
    """The engine said what it is doing while it starts."""

    instance: InstanceId
    phase: str


@dataclass(frozen=True, slots=True)
class InstanceReady:
    """The readiness probe passed."""

    instance: InstanceId


@dataclass(frozen=True, slots=True)
class EngineLost:
    """The engine is dead or dying without having been asked; its memory is not back yet."""

    instance: InstanceId
    failure: Failure


@dataclass(frozen=True, slots=True)
class InstanceExited:
    """Nothing of the instance is left: no process, no socket, no file."""

    instance: InstanceId
    failure: Failure | None = None  # set when it could not even be launched


@dataclass(frozen=True, slots=True)
class MemoryRead:
    """The probe read the pool; `view` is None when it could not: unknown is never free."""

    view: MemoryView | None


@dataclass(frozen=True, slots=True)
class LoadAsked:
    """An operator wants the model tried now, whatever its last starts did; a ticket follows."""

    model: ModelId


@dataclass(frozen=True, slots=True)
class UnloadAsked:
    """An operator wants the model gone; `now` does not wait for its answers to end."""

    model: ModelId
    now: bool = False


@dataclass(frozen=True, slots=True)
class CatalogueReplaced:
    """A validated configuration took effect."""

    catalogue: Catalogue
    pool: Pool


@dataclass(frozen=True, slots=True)
class ShutdownAsked:
    """The daemon stops: no new work, and what still runs at `deadline` is stopped."""

    deadline: Instant


@dataclass(frozen=True, slots=True)
class TimePassed:
    """The supervisor's one timer fired."""


Event = (
    RequestArrived
    | RequestCancelled
    | RequestEnded
    | PhaseReached
    | InstanceReady
    | EngineLost
    | InstanceExited
    | MemoryRead
    | LoadAsked
    | UnloadAsked
    | CatalogueReplaced
    | ShutdownAsked
    | TimePassed
)
