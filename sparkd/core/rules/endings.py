"""Rules about instances that have to go: overdue, unwanted, drained, idle for too long. Pure."""

from __future__ import annotations

from sparkd.core.catalogue import Role
from sparkd.core.decisions import Decision, Drain
from sparkd.core.fleet import Fleet
from sparkd.core.instance import Instance, Reason, State
from sparkd.core.quantities import Instant
from sparkd.core.rules.verdict import Verdict, stop, when_due


def stop_overdue_start(fleet: Fleet, now: Instant) -> Verdict:
    """A start is bounded by the model's `start_timeout`."""
    return when_due(
        (
            (
                Instant(i.started_at + fleet.lifecycle_of(i.model).start_timeout),
                stop(fleet, i, Reason.TIMEOUT),
            )
            for i in fleet.instances.values()
            if i.state is State.STARTING
        ),
        now,
    )


def stop_drained(fleet: Fleet, now: Instant) -> Verdict:
    """A drained instance stops when its last lease ends, or when its drain may last no longer."""
    return when_due(
        (
            (end[0], stop(fleet, i, end[1]))
            for i in fleet.instances.values()
            if i.state is State.DRAINING and (end := _drain_ends(fleet, i, now)) is not None
        ),
        now,
    )


def _drain_ends(fleet: Fleet, instance: Instance, now: Instant) -> tuple[Instant, Reason] | None:
    """When, and why then: answers that outlast any drain are cut by the shutdown alone."""
    reason = instance.reason or Reason.UNLOADED
    if not instance.is_busy or instance.unload_now:
        return now, reason
    bounds = ((instance.drain_until, reason), (fleet.closing, Reason.SHUTDOWN))
    known = [(until, why) for until, why in bounds if until is not None]
    return min(known, key=lambda bound: bound[0], default=None)


def end_unwanted(fleet: Fleet, now: Instant) -> Verdict:
    """Shutdown, the operator's unload and a changed configuration end what they concern."""
    decisions: list[Decision] = []
    for instance in fleet.instances.values():
        if instance.is_leaving:
            continue
        reason = _why_unwanted(fleet, instance)
        if reason is None:
            continue
        if instance.state is State.STARTING:
            decisions.append(stop(fleet, instance, reason))
        else:
            decisions.append(Drain(instance.id, reason, _drain_bound(fleet, instance, reason, now)))
    return tuple(decisions)


def _why_unwanted(fleet: Fleet, instance: Instance) -> Reason | None:
    if fleet.closing is not None:
        return Reason.SHUTDOWN
    if instance.unload_asked:
        return Reason.UNLOADED
    model = fleet.catalogue.get(instance.model)
    if model is None:
        return Reason.RECONFIGURED
    configured = (model.launch, model.budget, model.role)
    running = (instance.launch, instance.budget, instance.role)
    return None if configured == running else Reason.RECONFIGURED


def _drain_bound(fleet: Fleet, instance: Instance, reason: Reason, now: Instant) -> Instant | None:
    """A changed file or a starved model never cuts an answer; an operator's unload may."""
    if reason is Reason.SHUTDOWN:
        return fleet.closing
    if reason is Reason.UNLOADED:
        return Instant(now + fleet.lifecycle_of(instance.model).drain_timeout)
    return None


def stop_expired(fleet: Fleet, now: Instant) -> Verdict:
    """An idle instance stays for `keep_alive`, and at least `min_residency` after it was ready."""
    return when_due(
        (
            (at, stop(fleet, i, Reason.IDLE))
            for i in fleet.instances.values()
            if (at := _expires_at(fleet, i)) is not None
        ),
        now,
    )


def _expires_at(fleet: Fleet, instance: Instance) -> Instant | None:
    if instance.state is not State.READY or instance.role is Role.PINNED:
        return None
    if instance.idle_since is None or instance.ready_at is None:
        return None
    lifecycle = fleet.lifecycle_of(instance.model)
    if not lifecycle.keep_alive:
        return None
    kept = instance.idle_since + lifecycle.keep_alive
    return Instant(max(kept, instance.ready_at + lifecycle.min_residency))
