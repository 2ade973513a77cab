"""From the fleet to the JSON that operators read. Pure: no clock, no I/O, nothing decided."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparkd.api.shapes import (
    FailureShape,
    InstanceShape,
    ModelShape,
    PoolShape,
    ProblemShape,
    ReloadShape,
    StatusShape,
    WaitingShape,
)

if TYPE_CHECKING:
    from sparkd.api.ports import ReloadOutcome
    from sparkd.core.catalogue import Model, ModelId
    from sparkd.core.fleet import Fleet
    from sparkd.core.instance import Instance
    from sparkd.core.quantities import Instant, Seconds
    from sparkd.errors import Problem
    from sparkd.supervisor.lease import Progress


def status_view(
    fleet: Fleet, now: Instant, *, version: str, pid: int, uptime: Seconds
) -> StatusShape:
    failures = (failure_view(fleet, model_id, now) for model_id in fleet.histories)
    return StatusShape(
        version=version,
        pid=pid,
        uptime_seconds=_rounded(uptime),
        stopping=fleet.closing is not None,
        pool=pool_view(fleet),
        instances=[instance_view(instance, now) for instance in fleet.instances.values()],
        waiting=waiting_view(fleet, now),
        failures=[failure for failure in failures if failure is not None],
    )


def pool_view(fleet: Fleet) -> PoolShape:
    memory = fleet.memory
    return PoolShape(
        limit_bytes=fleet.pool.limit,
        reserve_bytes=fleet.pool.reserve,
        charged_bytes=fleet.charged,
        headroom_bytes=fleet.headroom,
        total_bytes=memory.total if memory else None,
        available_bytes=memory.available if memory else None,
    )


def instance_view(instance: Instance, now: Instant) -> InstanceShape:
    return InstanceShape(
        id=instance.id,
        model=instance.model,
        state=instance.state.value,
        phase=instance.phase,
        in_flight=instance.in_flight,
        served=instance.served,
        budget_bytes=instance.budget,
        started_seconds=_rounded(now - instance.started_at),
        ready_seconds=_since(instance.ready_at, now),
        idle_seconds=_since(instance.idle_since, now),
        reason=instance.reason.value if instance.reason else None,
    )


def waiting_view(fleet: Fleet, now: Instant) -> list[WaitingShape]:
    """One entry per model, the one that has waited longest first."""
    arrivals: dict[ModelId, list[Instant]] = {}
    for ticket in fleet.tickets.values():
        arrivals.setdefault(ticket.model, []).append(ticket.arrived_at)
    entries = [
        WaitingShape(model=model, requests=len(at), oldest_seconds=_rounded(now - min(at)))
        for model, at in arrivals.items()
    ]
    return sorted(entries, key=lambda entry: -entry["oldest_seconds"])


def failure_view(fleet: Fleet, model_id: ModelId, now: Instant) -> FailureShape | None:
    """None when the model's last start went well, or it never ran."""
    history = fleet.history_of(model_id)
    if history.last_failure is None or not history.failures:
        return None
    retry_at = history.not_before
    return FailureShape(
        model=model_id,
        cause=history.last_failure.cause.value,
        detail=history.last_failure.detail,
        failures=history.failures,
        retry_in_seconds=None if retry_at is None else _rounded(max(0.0, retry_at - now)),
    )


def model_view(fleet: Fleet, model: Model, progress: Progress, now: Instant) -> ModelShape:
    instance = fleet.instance_of(model.id)
    return ModelShape(
        id=model.id,
        aliases=list(model.aliases),
        description=model.description,
        role=model.role.value,
        task=model.launch.task.value,
        runtime=model.launch.runtime.name,
        max_model_len=model.launch.max_model_len,
        budget_bytes=model.budget,
        keep_alive_seconds=model.lifecycle.keep_alive,
        state=progress.state.value,
        phase=progress.phase,
        position=progress.position,
        estimate_seconds=None if progress.estimate is None else _rounded(progress.estimate),
        waiting=len(fleet.waiting_for(model.id)),
        instance=None if instance is None else instance_view(instance, now),
        failure=failure_view(fleet, model.id, now),
    )


def reload_view(outcome: ReloadOutcome) -> ReloadShape:
    return ReloadShape(
        changed=list(outcome.changed),
        added=list(outcome.added),
        removed=list(outcome.removed),
        warnings=[problem_view(problem) for problem in outcome.warnings],
    )


def problem_view(problem: Problem) -> ProblemShape:
    return ProblemShape(where=problem.where, message=problem.message, hint=problem.hint)


def _since(at: Instant | None, now: Instant) -> float | None:
    return None if at is None else _rounded(now - at)


def _rounded(seconds: float) -> float:
    return round(seconds, 3)
