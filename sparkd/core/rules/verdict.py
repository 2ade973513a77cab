"""What a rule answers, and the rule's habit of waiting for a time. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sparkd.core.decisions import Decision, NotBefore, Stop
from sparkd.core.fleet import Fleet
from sparkd.core.instance import Instance, Reason, State
from sparkd.core.quantities import Instant, Seconds

#: Decisions; or when time alone would change the answer; or nothing (None and () mean the same).
Verdict = tuple[Decision, ...] | NotBefore | None
Rule = Callable[[Fleet, Instant], Verdict]

#: SIGTERM to SIGKILL for an engine that is still starting: vLLM swallows a SIGTERM sent 8-12 s into
#: its start and then hangs for 600 s. Source: vllm 0.32.0 on CPU, measured 2026-11-23.
START_STOP_GRACE = Seconds(5.0)


def when_due(pairs: Iterable[tuple[Instant, Decision]], now: Instant) -> Verdict:
    """The decisions whose time has come, or when the next one's comes."""
    due: list[Decision] = []
    next_at: Instant | None = None
    for at, decision in pairs:
        if at <= now:
            due.append(decision)
        else:
            next_at = at if next_at is None else min(at, next_at)
    if due:
        return tuple(due)
    return None if next_at is None else NotBefore(next_at)


def stop(fleet: Fleet, instance: Instance, reason: Reason) -> Stop:
    """The stop with the grace that the instance's state allows."""
    if instance.state is State.STARTING:
        return Stop(instance.id, reason, START_STOP_GRACE)
    return Stop(instance.id, reason, fleet.lifecycle_of(instance.model).stop_timeout)
