"""What must hold after every step: core and truth agree, nobody is forgotten, all is at rest.

Stated from the truth alone, like `tests.core.invariants`.
"""

from __future__ import annotations

from sparkd.core.catalogue import Model, ModelId, Role
from sparkd.core.decisions import Drain, Stop
from sparkd.core.instance import Instance, Reason, State
from sparkd.core.planner import Settled, settle
from sparkd.core.quantities import Instant
from tests.core.invariants import (
    FRESH,
    TINY,
    could_ever_fit,
    is_reconfigured,
    lifecycle_of,
    running_pinned,
)
from tests.core.truth import Life, Truth


def check_rest(truth: Truth, settled: Settled, now: float) -> None:
    """After a step: core and truth agree, nobody is forgotten, and the core is at rest."""
    _check_agreement(truth, settled)
    _check_waiting(truth, now)
    for life in truth.lives.values():
        _check_not_overdue(truth, life, now)
    _check_evictions(truth, settled, now)
    _check_line(truth, settled, now)
    _check_at_rest(settled, now)


def _check_agreement(truth: Truth, settled: Settled) -> None:
    fleet = settled.fleet
    assert fleet.instances.keys() == truth.lives.keys()
    assert list(fleet.tickets) == list(truth.waiting), "tickets were lost, kept or reordered"
    assert len({x.model.id for x in truth.lives.values()}) == len(truth.lives), "two of one model"
    for instance in fleet.instances.values():
        life = truth.lives[instance.id]
        assert instance.in_flight == life.in_flight
        assert instance.idle_since == life.idle_since, "the idle clock is wrong"
        assert instance.state is _state(life)
        assert instance.ready_at == life.ready_at
        _check_idle_clock(instance)


def _check_idle_clock(instance: Instance) -> None:
    has_clock = instance.state in (State.READY, State.DRAINING) and not instance.in_flight
    assert (instance.idle_since is not None) == has_clock


def _state(life: Life) -> State:
    if life.is_ending:
        return State.STOPPING
    if life.drained is not None:
        return State.DRAINING
    return State.STARTING if life.ready_at is None else State.READY


def _check_waiting(truth: Truth, now: float) -> None:
    counts: dict[ModelId, int] = {}
    for asked in truth.waiting.values():
        model = truth.catalogue.get(asked.model)
        life = truth.life_of(asked.model)
        assert asked.owed is None, f"not told at once: {asked.owed}"
        assert truth.closing is None, "it waits while the daemon stops"
        assert model is not None, "it waits for a model that was removed"
        assert life is None or not life.serves, "it waits for a ready model"
        is_coming = life is not None and not life.is_leaving
        assert is_coming or could_ever_fit(truth, model), "it waits in vain"
        rest = truth.rest_of(asked.model)
        assert rest.failures < 3 or rest.until <= now, "it waits behind an open breaker"
        assert now < asked.arrived_at + model.queue.max_wait, "it waits for too long"
        counts[asked.model] = counts.get(asked.model, 0) + 1
        assert counts[asked.model] <= model.queue.max_waiting, "too many wait"


def _check_not_overdue(truth: Truth, life: Life, now: float) -> None:
    if life.is_ending:
        return
    lifecycle = lifecycle_of(truth, life.model.id)
    if life.ready_at is None:
        assert now < life.started_at + lifecycle.start_timeout, "it starts for too long"
    if life.drained is not None:
        assert life.in_flight, "a drained one stops when its last answer ends"
        assert not life.unload_now, "an operator does not wait"
        if life.unload_by is not None:
            assert now < life.unload_by, "the unload hangs"
        assert truth.closing is None or now < truth.closing, "the shutdown hangs"
        return
    assert truth.closing is None, "it stays although the daemon stops"
    assert life.unload_by is None, "it stays although it was unloaded"
    assert not is_reconfigured(truth, life), "it stays with an old configuration"
    if life.idle_since is not None and life.ready_at is not None and lifecycle.keep_alive:
        expires = max(
            life.idle_since + lifecycle.keep_alive, life.ready_at + lifecycle.min_residency
        )
        assert now < expires or life.model.role is Role.PINNED, "it is idle for too long"


def _check_evictions(truth: Truth, settled: Settled, now: float) -> None:
    """Victims go as a whole set, and only if the set suffices for someone."""
    reasons = {d.reason for d in settled.decisions if isinstance(d, Stop | Drain)}
    sacrificed = any(
        d.reason is Reason.EVICTED if isinstance(d, Stop) else d.reason is Reason.STARVED
        for d in settled.decisions
        if isinstance(d, Stop | Drain)
    )
    if not sacrificed:
        return
    staying = [x for x in truth.lives.values() if not x.is_leaving]
    left = truth.pool.limit - sum(x.model.budget for x in staying)
    assert any(
        m.budget <= left and (m.role is not Role.EXCLUSIVE or not staying)
        for m in (*_wanted(truth), *running_pinned(truth))
    ), f"sacrificed for nobody: {reasons}"


def _wanted(truth: Truth) -> list[Model]:
    """Cold models that someone waits for, in the order of their earliest ticket."""
    wanted: dict[ModelId, Model] = {}
    for asked in truth.waiting.values():
        life, model = truth.life_of(asked.model), truth.catalogue.get(asked.model)
        if model is not None and (life is None or life.is_leaving):
            wanted.setdefault(model.id, model)
    return list(wanted.values())


def _check_line(truth: Truth, settled: Settled, now: float) -> None:
    """Whoever is first in line starts as soon as it can: nobody is wedged behind nothing."""
    if truth.closing is not None or truth.reading_asked_at is not None:
        return
    wanted, lives = _wanted(truth), list(truth.lives.values())
    if any(x.model.role is Role.EXCLUSIVE for x in lives):
        return
    present = {x.model.id for x in lives if not x.is_leaving}
    absent = [m for m in running_pinned(truth) if m.id not in present]
    stepping_back = any(m.role is Role.EXCLUSIVE for m in wanted)
    if not stepping_back:
        wanted = [*absent, *(m for m in wanted if m not in absent)]
    if not wanted or truth.rest_of(wanted[0].id).until > now:
        return
    first = wanted[0]
    free = truth.pool.limit - sum(x.model.budget for x in lives)
    if first.role is Role.EXCLUSIVE:
        free = truth.pool.limit if not lives else -1
    elif stepping_back or first.role is not Role.PINNED:
        free -= sum(m.budget for m in absent if m is not first)
    if first.budget > free or truth.life_of(first.id) is not None:
        return
    as_of, reading = truth.reading_as_of, truth.reading
    assert as_of is not None, "nobody asked for the memory"
    loading = sum(x.model.budget for x in lives if x.ready_at is None or x.ready_at > as_of)
    vetoed = reading is None or reading.available - truth.pool.reserve - loading < first.budget
    leaving = any(x.is_leaving for x in lives)
    assert vetoed or leaving, f"{first.id} is first, fits, and is not started"
    assert settled.look_again_at is not None, "a veto for ever"
    assert settled.look_again_at <= as_of + FRESH + TINY, "the memory is not looked at again"


def _check_at_rest(settled: Settled, now: float) -> None:
    """Nothing is left to decide now, nor until the core wants to look again."""
    at = settled.look_again_at
    assert at is None or at > now, "it wants to look again in the past"
    assert at != float("inf"), "it wants to look again at the end of time"
    assert not settle(settled.fleet, Instant(now)).decisions, "settling twice decides twice"
    later = now + 1e7 if at is None else now + (at - now) * 0.999
    if later > now and (at is None or later < at):
        overslept = settle(settled.fleet, Instant(later)).decisions
        assert not overslept, f"it overslept: {overslept}"
