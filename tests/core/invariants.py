"""What must hold of each decision when it is taken (`tests.core.at_rest` has the rest).

Stated from the truth alone. A check that used the core's own arithmetic would share its mistakes.
"""

from __future__ import annotations

from typing import assert_never

from sparkd.core.catalogue import Lifecycle, Model, ModelId, Role
from sparkd.core.decisions import Decision, Drain, Grant, ReadMemory, Refuse, Start, Stop
from sparkd.core.instance import Reason
from sparkd.errors import (
    BackingOffError,
    ModelRemovedError,
    NeverFitsError,
    QueueFullError,
    QueueTimeoutError,
    ShuttingDownError,
)
from tests.core.truth import Asked, Life, Truth

FRESH = 1.0
START_GRACE = 5.0
#: Clocks are floats: sums of the same numbers in another order differ by less than this.
TINY = 1e-6


def check_decision(truth: Truth, decision: Decision, now: float) -> None:
    match decision:
        case Grant():
            _check_grant(truth, decision)
        case Refuse():
            _check_refuse(truth, decision, now)
        case Start():
            _check_start(truth, decision, now)
        case Drain():
            _check_drain(truth, decision, now)
        case Stop():
            _check_stop(truth, decision, now)
        case ReadMemory():
            assert truth.reading_asked_at is None, "a second reading while one is under way"
        case _:
            assert_never(decision)


# -- requests --------------------------------------------------------------------------------


def _check_grant(truth: Truth, grant: Grant) -> None:
    asked, life = truth.waiting.get(grant.ticket), truth.lives[grant.instance]
    assert asked is not None, "granted to someone who does not wait"
    assert asked.owed is None, "granted to someone who is to be refused"
    assert life.serves, "granted on an instance that does not serve"
    assert life.model.id == asked.model, "granted on another model"


def _check_refuse(truth: Truth, refuse: Refuse, now: float) -> None:
    asked, error = truth.waiting.get(refuse.ticket), refuse.error
    assert asked is not None, "refused someone who does not wait"
    model = truth.catalogue.get(asked.model)
    after = error.retry_after
    assert after is None or after >= 0, "an impossible Retry-After"
    match error:
        case ShuttingDownError():
            assert truth.closing is not None
        case ModelRemovedError():
            assert model is None
        case _ if asked.owed is not None:
            assert type(error) is asked.owed, f"{error!r} instead of {asked.owed}"
        case NeverFitsError():
            assert model is not None
            assert not could_ever_fit(truth, model)
        case BackingOffError():
            rest = truth.rest_of(asked.model)
            assert rest.failures >= 3
            assert rest.until > now
            assert after is not None
            assert abs(after - (rest.until - now)) < TINY, "a dishonest Retry-After"
        case QueueTimeoutError():
            assert model is not None
            assert now >= asked.arrived_at + model.queue.max_wait - TINY
        case QueueFullError():
            assert model is not None
            ahead = sum(t.id < asked.id for t in truth.waiting_for(asked.model))
            assert ahead >= model.queue.max_waiting, "refused before the queue was full"
        case _:
            raise AssertionError(f"refused without a reason: {error!r}")


def could_ever_fit(truth: Truth, model: Model) -> bool:
    pinned = 0 if model.role is Role.EXCLUSIVE else _budget_of_pinned(truth, but=model.id)
    return model.budget + pinned <= truth.pool.limit


def running_pinned(truth: Truth) -> list[Model]:
    """Those that should run: first come, first in, as far as they fit together."""
    fitting: list[Model] = []
    for model in truth.catalogue:
        if model.role is not Role.PINNED or model.id in truth.held:
            continue
        if sum(m.budget for m in fitting) + model.budget <= truth.pool.limit:
            fitting.append(model)
    return fitting


def _budget_of_pinned(truth: Truth, but: ModelId) -> int:
    return sum(m.budget for m in running_pinned(truth) if m.id != but)


# -- starts ----------------------------------------------------------------------------------


def _check_start(truth: Truth, start: Start, now: float) -> None:
    model = start.model
    lives = list(truth.lives.values())
    assert truth.closing is None, "started while the daemon stops"
    assert start.instance not in truth.used_ids, "an instance id was used again"
    assert truth.catalogue.get(model.id) is model, "started from an old configuration"
    assert truth.life_of(model.id) is None, "two instances of one model"
    waited_for = any(t.owed is None for t in truth.waiting_for(model.id))
    is_pinned = any(m.id == model.id for m in running_pinned(truth))
    assert waited_for or is_pinned, "started without being wanted"
    assert truth.rest_of(model.id).until <= now, "started during its back-off"
    charged = sum(x.model.budget for x in lives)
    assert charged + model.budget <= truth.pool.limit, "over the limit"
    assert not any(x.model.role is Role.EXCLUSIVE for x in lives), "started beside an exclusive one"
    if model.role is Role.EXCLUSIVE:
        assert not lives, "an exclusive one started beside others"
        _check_exclusive_waited_its_turn(truth, model)
    else:
        _check_room_of_pinned(truth, model, charged)
    _check_memory(truth, model, now)


def _check_exclusive_waited_its_turn(truth: Truth, model: Model) -> None:
    first = min(t.id for t in truth.waiting_for(model.id) if t.owed is None)
    for asked in truth.waiting.values():
        assert asked.id >= first or asked.owed is not None, "it overtook"


def _check_room_of_pinned(truth: Truth, model: Model, charged: int) -> None:
    absent = [m for m in running_pinned(truth) if truth.life_of(m.id) is None and m.id != model.id]
    if model.role is not Role.PINNED:
        now = truth.pool.limit - charged - model.budget
        later = now + sum(x.model.budget for x in truth.lives.values() if x.is_leaving)
        assert sum(m.budget for m in absent) <= later, "took a pinned one's room"
        fitted = now + model.budget
        for pinned in absent:
            if pinned.budget <= fitted:
                fitted, now = fitted - pinned.budget, now - pinned.budget
        assert now >= 0, "took the room that a pinned one could have now"


def _check_memory(truth: Truth, model: Model, now: float) -> None:
    assert truth.reading_asked_at is None, "started while a reading was under way"
    assert truth.reading is not None, "started without knowing the memory"
    as_of = truth.reading_as_of
    assert as_of is not None
    assert now - as_of < FRESH, "started on a stale reading"
    assert truth.last_exit_at is None or as_of >= truth.last_exit_at, "read before the last exit"
    loading = sum(
        x.model.budget
        for x in truth.lives.values()
        if x.ready_at is None or x.ready_at > as_of
        if not x.is_leaving or x.ready_at is not None
    )
    free = truth.reading.available - truth.pool.reserve - loading
    assert free >= model.budget, "started against the probe's veto"


# -- endings ---------------------------------------------------------------------------------


def lifecycle_of(truth: Truth, model: ModelId) -> Lifecycle:
    entry = truth.catalogue.get(model)
    return Lifecycle() if entry is None else entry.lifecycle


def _check_drain(truth: Truth, drain: Drain, now: float) -> None:
    life = truth.lives[drain.instance]
    assert life.serves, "drained what does not serve"
    match drain.reason:
        case Reason.STARVED:
            assert life.in_flight, "an idle one needs no drain"
            assert drain.until is None, "an answer would be cut for another model"
            _check_victim(truth, life)
            assert life.ready_at is not None
            residency = lifecycle_of(truth, life.model.id).min_residency
            assert now >= life.ready_at + residency - TINY, "drained before its residency"
            assert any(_is_starved(truth, t, now) for t in _others(truth, life)), "too impatient"
        case Reason.UNLOADED:
            assert life.unload_by is not None
            assert drain.until is not None, "an unload may wait for ever"
        case Reason.RECONFIGURED:
            assert is_reconfigured(truth, life)
            assert drain.until is None, "an answer would be cut for a changed file"
        case Reason.SHUTDOWN:
            assert truth.closing is not None
            assert drain.until == truth.closing
        case _:
            raise AssertionError(f"drained because {drain.reason}")


def _others(truth: Truth, life: Life) -> list[Asked]:
    return [t for t in truth.waiting.values() if t.model != life.model.id and t.owed is None]


def _is_starved(truth: Truth, asked: Asked, now: float) -> bool:
    model = truth.catalogue.get(asked.model)
    return model is not None and now >= asked.arrived_at + model.queue.patience - TINY


def _check_victim(truth: Truth, life: Life) -> None:
    if life.model.role is Role.PINNED:
        waits = [truth.catalogue.get(t.model) for t in _others(truth, life)]
        alone = [m for m in waits if m is not None and m.role is Role.EXCLUSIVE]
        assert alone, "a pinned one went for one that shares"


def is_reconfigured(truth: Truth, life: Life) -> bool:
    entry = truth.catalogue.get(life.model.id)
    if entry is None:
        return True
    now = (entry.launch, entry.budget, entry.role)
    return now != (life.model.launch, life.model.budget, life.model.role)


def _check_stop(truth: Truth, stop: Stop, now: float) -> None:
    life = truth.lives[stop.instance]
    lifecycle = lifecycle_of(truth, life.model.id)
    assert not life.is_ending, "stopped twice"
    is_starting = life.ready_at is None
    assert stop.grace == (START_GRACE if is_starting else lifecycle.stop_timeout), "wrong grace"
    _check_answers_may_be_cut(truth, life, stop.reason, now)
    match stop.reason:
        case Reason.IDLE:
            assert life.serves
            assert life.model.role is not Role.PINNED, "a pinned one is never idle too long"
            assert lifecycle.keep_alive, "keep_alive 0 means for ever"
            assert life.idle_since is not None
            assert life.ready_at is not None
            assert now >= life.idle_since + lifecycle.keep_alive - TINY, "its keep-alive ran"
            assert now >= life.ready_at + lifecycle.min_residency - TINY, "its residency ran"
        case Reason.EVICTED:
            assert life.serves
            _check_victim(truth, life)
        case Reason.STARVED:
            assert life.drained is not None
            assert life.drained[1].reason is Reason.STARVED
        case Reason.UNLOADED:
            assert life.unload_by is not None
        case Reason.RECONFIGURED:
            drained = life.drained is not None and life.drained[1].reason is Reason.RECONFIGURED
            assert drained or (is_starting and is_reconfigured(truth, life))
        case Reason.TIMEOUT:
            assert is_starting
            assert now >= life.started_at + lifecycle.start_timeout - TINY, "it had time left"
        case Reason.SHUTDOWN:
            assert truth.closing is not None
        case _:
            raise AssertionError(f"stopped because {stop.reason}")


def _check_answers_may_be_cut(truth: Truth, life: Life, reason: Reason, now: float) -> None:
    if not life.in_flight:
        return
    assert life.drained is not None, "a busy one was not drained first"
    if reason is Reason.SHUTDOWN:
        assert truth.closing is not None
        assert now >= truth.closing - TINY, "an answer was cut before the deadline"
        return
    assert reason is Reason.UNLOADED, f"an answer was cut because {reason}"
    assert life.unload_by is not None
    assert life.unload_now or now >= life.unload_by - TINY, "cut before the drain was over"
