"""Rules about requests: who is served, and who is told that it will not be. Pure."""

from __future__ import annotations

from collections import Counter

from sparkd.core import room
from sparkd.core.catalogue import Model, ModelId
from sparkd.core.decisions import Decision, Grant, NotBefore, Refuse
from sparkd.core.estimates import seconds_until_served
from sparkd.core.fleet import Fleet
from sparkd.core.instance import State
from sparkd.core.quantities import Instant, format_duration, format_size
from sparkd.core.rules.verdict import Verdict
from sparkd.errors import (
    BackingOffError,
    ModelRemovedError,
    NeverFitsError,
    QueueFullError,
    QueueTimeoutError,
    ShuttingDownError,
    SparkdError,
)


def grant_waiting(fleet: Fleet, now: Instant) -> Verdict:
    """A ready model serves at once, always."""
    ready = {i.model: i.id for i in fleet.instances.values() if i.state is State.READY}
    return tuple(
        Grant(t.id, ready[t.model])
        for t in fleet.tickets.values()
        if t.model in ready and t.doom is None
    )


def refuse_hopeless(fleet: Fleet, now: Instant) -> Verdict:
    """Whoever waits in vain is told at once, and why."""
    asked_for = dict.fromkeys(ticket.model for ticket in fleet.tickets.values())
    hopeless = {model_id: _why_hopeless(fleet, model_id, now) for model_id in asked_for}
    return tuple(
        Refuse(ticket.id, error)
        for ticket in fleet.tickets.values()
        if (error := ticket.doom or hopeless[ticket.model]) is not None
    )


def _why_hopeless(fleet: Fleet, model_id: ModelId, now: Instant) -> SparkdError | None:
    if fleet.closing is not None:
        return ShuttingDownError(f"cannot serve model '{model_id}': sparkd is stopping")
    model = fleet.catalogue.get(model_id)
    if model is None:
        return ModelRemovedError(
            f"cannot serve model '{model_id}': it was removed from the configuration"
        )
    if _is_starting(fleet, model.id):
        return None  # it is on its way, even if it would not be started any more
    return _never_fits(fleet, model) or _breaker_open(fleet, model.id, now)


def _is_starting(fleet: Fleet, model: ModelId) -> bool:
    instance = fleet.instance_of(model)
    return instance is not None and instance.state is State.STARTING


def _never_fits(fleet: Fleet, model: Model) -> SparkdError | None:
    most = room.most_it_can_get(fleet, model)
    if model.budget <= most:
        return None
    return NeverFitsError(
        f"cannot start model '{model.id}': its budget of {format_size(model.budget)} is more than "
        f"the {format_size(most)} that the pool can give it",
        hint="lower [memory] budget of the model, raise [memory] limit, or unload a pinned model",
    )


def _breaker_open(fleet: Fleet, model: ModelId, now: Instant) -> SparkdError | None:
    until = room.resting_until(fleet, model, now)
    if until is None or not room.breaker_is_open(fleet, model, now):
        return None
    history = fleet.history_of(model)
    failure = history.last_failure
    cause = f"{failure.detail} ({failure.cause}, {failure.how()})" if failure else "unknown"
    return BackingOffError(
        f"cannot start model '{model}': its last {history.failures} starts failed: {cause}; "
        f"the next attempt is in {format_duration(until - now)}",
        hint=f"sparkctl logs {model}; `sparkctl load {model}` tries again at once",
        retry_after=until - now,
    )


def refuse_overdue(fleet: Fleet, now: Instant) -> Verdict:
    """A wait is bounded by the model's `max_wait`."""
    overdue: list[Decision] = []
    next_at: Instant | None = None
    for ticket in fleet.tickets.values():
        model = fleet.catalogue.get(ticket.model)
        if model is None:
            continue
        at = Instant(ticket.arrived_at + model.queue.max_wait)
        if at > now:
            next_at = at if next_at is None else min(at, next_at)
        else:
            overdue.append(Refuse(ticket.id, _waited_too_long(fleet, model, now)))
    if overdue:
        return tuple(overdue)
    return None if next_at is None else NotBefore(next_at)


def _waited_too_long(fleet: Fleet, model: Model, now: Instant) -> SparkdError:
    return QueueTimeoutError(
        f"cannot serve model '{model.id}': it was not ready within "
        f"{format_duration(model.queue.max_wait)}",
        hint="sparkctl status shows what holds the memory",
        retry_after=seconds_until_served(fleet, model.id, now),
    )


def refuse_overflow(fleet: Fleet, now: Instant) -> Verdict:
    """A queue is bounded by the model's `max_waiting`; the last to come is the one refused."""
    refused: list[Decision] = []
    waiting: Counter[ModelId] = Counter()
    for ticket in fleet.tickets.values():
        waiting[ticket.model] += 1
        model = fleet.catalogue.get(ticket.model)
        if model is not None and waiting[model.id] > model.queue.max_waiting:
            refused.append(Refuse(ticket.id, _queue_full(fleet, model, now)))
    return tuple(refused)


def _queue_full(fleet: Fleet, model: Model, now: Instant) -> SparkdError:
    return QueueFullError(
        f"cannot queue the request: {model.queue.max_waiting} already wait for model '{model.id}'",
        retry_after=seconds_until_served(fleet, model.id, now),
    )
