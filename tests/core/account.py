"""How events and decisions change the truth: the plain reading of the policy, once more."""

from __future__ import annotations

from typing import assert_never

from sparkd.core import events as e
from sparkd.core.catalogue import Lifecycle, ModelId, Role
from sparkd.core.decisions import Decision, Drain, Grant, ReadMemory, Refuse, Start, Stop
from sparkd.core.failure import FailureCause
from sparkd.core.instance import Reason
from sparkd.errors import ModelUnloadedError, SparkdError, StartFailedError, StartTimeoutError
from tests.core.truth import Asked, Life, Rest, Truth

PAUSES = (1.0, 2.0, 30.0, 60.0, 120.0, 240.0, 480.0, 600.0)
HEALTHY = 60.0


def note_event(truth: Truth, event: e.Event, now: float) -> None:
    match event:
        case e.RequestArrived(ticket, model):
            asked = Asked(id=ticket, model=model, arrived_at=now)
            truth.asked[ticket] = truth.waiting[ticket] = asked
            truth.held.discard(model)
        case e.RequestCancelled(ticket):
            waited = truth.waiting.pop(ticket, None)
            if waited is not None:
                waited.cancelled = True
        case e.MemoryRead(view):
            truth.reading, truth.reading_as_of = view, truth.reading_asked_at
            truth.reading_asked_at = None
        case e.LoadAsked(model):
            truth.held.discard(model)
            truth.rests[model] = Rest()
        case e.UnloadAsked(model, at_once):
            _note_unload(truth, model, now, at_once=at_once)
        case e.CatalogueReplaced(catalogue, pool):
            truth.catalogue, truth.pool = catalogue, pool
            truth.rests.clear()
        case e.ShutdownAsked(deadline):
            truth.closing = deadline
        case e.TimePassed() | e.PhaseReached():
            pass
        case e.RequestEnded() | e.InstanceReady() | e.EngineLost() | e.InstanceExited():
            life = truth.lives.get(event.instance)
            if life is not None:
                _note_news(truth, life, event, now)
        case _:
            assert_never(event)


def _note_unload(truth: Truth, model: ModelId, now: float, *, at_once: bool) -> None:
    entry = truth.catalogue.get(model)
    if entry is not None and entry.role is Role.PINNED:
        truth.held.add(model)
    life = truth.life_of(model)
    if life is not None:
        patient = Lifecycle() if entry is None else entry.lifecycle
        by = now + patient.drain_timeout
        life.unload_by = by if life.unload_by is None else min(life.unload_by, by)
        life.unload_now |= at_once
    _owe(truth, model, ModelUnloadedError)


def _note_news(
    truth: Truth,
    life: Life,
    event: e.RequestEnded | e.InstanceReady | e.EngineLost | e.InstanceExited,
    now: float,
) -> None:
    match event:
        case e.RequestEnded():
            life.in_flight -= 1
            if not life.in_flight and not life.is_ending:
                life.idle_since = now
        case e.InstanceReady():
            if life.ready_at is None and not life.is_leaving:
                life.ready_at = life.idle_since = now
        case e.EngineLost(failure=failure):
            if not life.is_ending:
                _note_failure(truth, life, failure.cause, now)
        case e.InstanceExited(failure=failure):
            if not life.is_ending:
                _note_failure(truth, life, failure.cause if failure else None, now)
            elif not life.lost and _was_healthy(life, now):
                truth.rests.pop(life.model.id, None)
            del truth.lives[life.id]
            truth.last_exit_at = now
        case _:
            assert_never(event)


def _note_failure(truth: Truth, life: Life, cause: FailureCause | None, now: float) -> None:
    life.lost, life.idle_since = True, None
    rest = truth.rest_of(life.model.id)
    rest.failures = 1 if _was_healthy(life, now) else rest.failures + 1
    rest.until = now + PAUSES[min(rest.failures, len(PAUSES)) - 1]
    if life.ready_at is None:
        timed_out = cause is FailureCause.TIMEOUT
        _owe(truth, life.model.id, StartTimeoutError if timed_out else StartFailedError)


def _was_healthy(life: Life, now: float) -> bool:
    return life.ready_at is not None and now - life.ready_at >= HEALTHY


def _owe(truth: Truth, model: ModelId, error: type[SparkdError]) -> None:
    for asked in truth.waiting_for(model):
        asked.owed = asked.owed or error


def note_decision(truth: Truth, decision: Decision, now: float) -> None:
    match decision:
        case Grant(ticket, instance):
            truth.waiting.pop(ticket).granted = instance
            life = truth.lives[instance]
            life.in_flight += 1
            life.idle_since = None
        case Refuse(ticket, error):
            truth.waiting.pop(ticket).refused = error
        case Start(instance, model):
            truth.lives[instance] = Life(id=instance, model=model, started_at=now)
            truth.used_ids.add(instance)
        case Drain(instance):
            truth.lives[instance].drained = (now, decision)
        case Stop(instance, reason):
            life = truth.lives[instance]
            life.stopped, life.idle_since = (now, decision), None
            if reason is Reason.TIMEOUT:
                _note_failure(truth, life, FailureCause.TIMEOUT, now)
        case ReadMemory():
            truth.reading_asked_at = now
        case _:
            assert_never(decision)
