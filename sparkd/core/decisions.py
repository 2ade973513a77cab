"""What to do: the planner's answers, in the imperative; the supervisor makes them effects. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from sparkd.core.catalogue import Model
from sparkd.core.instance import InstanceId, Reason, TicketId
from sparkd.core.quantities import Instant, Seconds
from sparkd.errors import SparkdError


@dataclass(frozen=True, slots=True)
class Grant:
    """Give the ticket its lease on the instance."""

    ticket: TicketId
    instance: InstanceId


@dataclass(frozen=True, slots=True)
class Refuse:
    """Tell the ticket that it will not be served, and why."""

    ticket: TicketId
    error: SparkdError


@dataclass(frozen=True, slots=True)
class Start:
    """Launch an instance of the model."""

    instance: InstanceId
    model: Model


@dataclass(frozen=True, slots=True)
class Drain:
    """Grant no further lease on the instance; `until` bounds how long its answers may take."""

    instance: InstanceId
    reason: Reason
    until: Instant | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """End the instance: SIGTERM, and SIGKILL after `grace` seconds."""

    instance: InstanceId
    reason: Reason
    grace: Seconds


@dataclass(frozen=True, slots=True)
class ReadMemory:
    """Ask the probe; a start needs a fresh reading."""


Decision = Grant | Refuse | Start | Drain | Stop | ReadMemory


@dataclass(frozen=True, slots=True)
class NotBefore:
    """A rule has nothing to do now, and will have at `at`."""

    at: Instant
