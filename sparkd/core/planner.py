"""What to do next: ordered rules over a fleet, settled to a fixed point. Pure.

A rule looks at the fleet and the time, and answers with decisions, with `NotBefore(t)` when time
alone would change its answer, or with nothing. `settle` takes the first rule that decides, commits
and starts again. It ends because every decision removes a waiter, moves an instance one step along
its one-way life, starts a model that had none, or asks for memory that is not yet asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

from sparkd.core.decisions import Decision, NotBefore
from sparkd.core.fleet import Fleet, commit
from sparkd.core.quantities import Instant
from sparkd.core.rules.endings import end_unwanted, stop_drained, stop_expired, stop_overdue_start
from sparkd.core.rules.requests import (
    grant_waiting,
    refuse_hopeless,
    refuse_overdue,
    refuse_overflow,
)
from sparkd.core.rules.starts import start_wanted
from sparkd.core.rules.verdict import Rule

#: In order: requests first, then what has to go, then what has to come.
RULES: tuple[Rule, ...] = (
    grant_waiting,
    refuse_hopeless,
    refuse_overdue,
    refuse_overflow,
    stop_overdue_start,
    end_unwanted,
    stop_drained,
    stop_expired,
    start_wanted,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A fleet with nothing left to decide until `look_again_at` or the next event."""

    fleet: Fleet
    decisions: tuple[Decision, ...]
    look_again_at: Instant | None


def settle(fleet: Fleet, now: Instant) -> Settled:
    """Raises RuntimeError when the rules do not come to rest, which is a fault in a rule."""
    taken: list[Decision] = []
    most = 16 + 8 * (len(fleet.tickets) + len(fleet.instances) + len(fleet.catalogue))
    for _ in range(most):
        decisions, look_again_at = _first_decisions(fleet, now)
        if not decisions:
            return Settled(fleet=fleet, decisions=tuple(taken), look_again_at=look_again_at)
        fleet = commit(fleet, decisions, now)
        taken.extend(decisions)
    raise RuntimeError(f"the rules did not settle after {most} rounds; the last: {taken[-3:]}")


def _first_decisions(fleet: Fleet, now: Instant) -> tuple[tuple[Decision, ...], Instant | None]:
    look_again_at: Instant | None = None
    for rule in RULES:
        match rule(fleet, now):
            case NotBefore(at):
                assert at > now, f"{rule.__name__} wants to look again in the past"
                look_again_at = at if look_again_at is None else min(at, look_again_at)
            case None | ():
                pass
            case decisions:
                return decisions, None
    return (), look_again_at
