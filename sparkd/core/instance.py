"""One launched server of a model: its identity, its states, and which may follow which. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

from sparkd.core.catalogue import LaunchSpec, ModelId, Role
from sparkd.core.failure import Failure
from sparkd.core.quantities import Bytes, Instant

#: Never reused, not even by the next daemon: news about a life that is over must change nothing.
InstanceId = NewType("InstanceId", str)
TicketId = NewType("TicketId", int)


class State(StrEnum):
    """Where an instance is in its one-way life. A model without an instance is cold."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"  # no new lease; current ones end
    STOPPING = "stopping"  # told to stop, or dying; the budget is still charged


#: Which state may follow which; leaving STOPPING means the instance is gone.
TRANSITIONS: dict[State, frozenset[State]] = {
    State.STARTING: frozenset({State.READY, State.STOPPING}),
    State.READY: frozenset({State.DRAINING, State.STOPPING}),
    State.DRAINING: frozenset({State.STOPPING}),
    State.STOPPING: frozenset(),
}


class Reason(StrEnum):
    """Why an instance is drained or stopped; a word for logs and status."""

    IDLE = "idle"  # keep-alive ran out
    EVICTED = "evicted"  # idle, and its memory is wanted
    STARVED = "starved"  # busy, and another model has waited longer than its patience
    UNLOADED = "unloaded"  # an operator asked
    RECONFIGURED = "reconfigured"  # its launch spec changed, or it left the catalogue
    TIMEOUT = "timeout"  # not ready within start_timeout
    FAILED = "failed"  # the engine died
    SHUTDOWN = "shutdown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """What is known about one launched server."""

    id: InstanceId
    model: ModelId
    launch: LaunchSpec  # what it was started with; differs from the catalogue's after a reload
    budget: Bytes
    role: Role
    state: State
    started_at: Instant
    ready_at: Instant | None = None
    in_flight: int = 0  # leases granted and not ended
    idle_since: Instant | None = None  # set exactly while ready or draining with in_flight == 0
    phase: str = ""  # what the engine says it is doing while starting
    reason: Reason | None = None  # why it drains or stops
    drain_until: Instant | None = None  # a drain that may not wait for ever is stopped then
    failure: Failure | None = None  # set once the engine was lost without being asked
    served: int = 0  # leases granted in its life
    unload_asked: bool = False  # an operator wants it gone
    unload_now: bool = False  # and does not wait for its answers

    @property
    def is_leaving(self) -> bool:
        """It will end without a further decision being needed, and takes no new lease."""
        return self.state in (State.DRAINING, State.STOPPING)

    @property
    def is_busy(self) -> bool:
        return self.in_flight > 0
