"""Which models are wanted, and what must go so that they can start. Pure arithmetic on a fleet.

A *claim* is the budget of a wanted model that cannot start yet. Models are walked in the order in
which they are wanted; each one that has to wait leaves its claim behind, so that a later one
overtakes only when it fits beside all earlier claims.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from sparkd.core.backoff import BREAKER_AFTER
from sparkd.core.catalogue import Model, ModelId, Role
from sparkd.core.fleet import Fleet
from sparkd.core.instance import Instance, InstanceId, State
from sparkd.core.quantities import Bytes, Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """A model that should run and is not ready. `since`: None for a pinned one not asked for."""

    model: Model
    since: Instant | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Victims:
    """Instances to stop so that a wanted model fits. The whole set may go from `at` on."""

    idle: tuple[Instance, ...] = ()
    busy: tuple[Instance, ...] = ()
    at: Instant | None = None  # None: now

    @property
    def budget(self) -> int:
        return sum(i.budget for i in (*self.idle, *self.busy))

    @property
    def ids(self) -> frozenset[InstanceId]:
        return frozenset(i.id for i in (*self.idle, *self.busy))


def wanted(fleet: Fleet) -> tuple[Want, ...]:
    """Models to start, in the order in which they have a right to room.

    Absent pinned ones come first: their claim stands for as long as they are down. They step back
    while an exclusive model runs or is waited for (`stepped_back`), and return after it; those
    that were asked for before it come before it.
    """
    cold = _waited_for(fleet)
    if exclusive_instance(fleet) is not None:
        return tuple(cold.values())
    ahead = dict(itertools.takewhile(lambda item: not _is_exclusive(item[1]), cold.items()))
    behind = [want for model_id, want in cold.items() if model_id not in ahead]
    absent = [m for m in pinned_models(fleet) if not _is_served(fleet, m.id)]
    if behind:
        absent = [m for m in absent if m.id in ahead]
    pinned = [ahead.pop(m.id, Want(model=m, since=None)) for m in absent]
    return (*pinned, *ahead.values(), *behind)


def _waited_for(fleet: Fleet) -> dict[ModelId, Want]:
    """Cold models with a ticket, by the earliest of each."""
    waited: dict[ModelId, Want] = {}
    for ticket in fleet.tickets.values():
        model = fleet.catalogue.get(ticket.model)
        if model is not None and ticket.doom is None and ticket.model not in waited:
            waited[ticket.model] = Want(model=model, since=ticket.arrived_at)
    return {i: w for i, w in waited.items() if not _is_served(fleet, i)}


def _is_exclusive(want: Want) -> bool:
    return want.model.role is Role.EXCLUSIVE


def pinned_models(fleet: Fleet) -> tuple[Model, ...]:
    """Those that should always run: in catalogue order as far as they fit together, not held."""
    chosen, total = [], 0
    for model in fleet.catalogue:
        if model.role is not Role.PINNED or model.id in fleet.held:
            continue
        if total + model.budget <= fleet.pool.limit:
            chosen.append(model)
            total += model.budget
    return tuple(chosen)


def stepped_back(fleet: Fleet, wants: Iterable[Want]) -> tuple[Model, ...]:
    """Absent pinned ones that may not start now: no other model takes their room meanwhile."""
    claimed = {w.model.id for w in itertools.takewhile(lambda w: not _is_exclusive(w), wants)}
    absent = (m for m in pinned_models(fleet) if not _is_served(fleet, m.id))
    return tuple(m for m in absent if m.id not in claimed)


def most_it_can_get(fleet: Fleet, model: Model) -> Bytes:
    """The largest budget with which the model could ever start, all others but pinned ones gone."""
    if model.role is Role.EXCLUSIVE:
        return fleet.pool.limit
    others = sum(m.budget for m in pinned_models(fleet) if m.id != model.id)
    return Bytes(fleet.pool.limit - others)


def resting_until(fleet: Fleet, model: ModelId, now: Instant) -> Instant | None:
    """When the model's back-off ends; None when it may start now."""
    not_before = fleet.history_of(model).not_before
    return not_before if not_before is not None and not_before > now else None


def breaker_is_open(fleet: Fleet, model: ModelId, now: Instant) -> bool:
    failures = fleet.history_of(model).failures
    return failures >= BREAKER_AFTER and resting_until(fleet, model, now) is not None


def leaving_budget(fleet: Fleet) -> int:
    return sum(i.budget for i in fleet.instances.values() if i.is_leaving)


def exclusive_instance(fleet: Fleet) -> Instance | None:
    return next((i for i in fleet.instances.values() if i.role is Role.EXCLUSIVE), None)


def victims_for(
    fleet: Fleet,
    want: Want,
    shortage: int,
    now: Instant,
    promised: frozenset[InstanceId] = frozenset(),
) -> Victims | None:
    """The set to stop so that `want` gets `shortage` more bytes; None while no set would do.

    Idle before busy, least recently used first, the one that reloads fastest among equals. One is
    not taken where the others already suffice. `promised` ones already go for an earlier model.
    """
    if want.model.role is Role.EXCLUSIVE:
        return _all_of(fleet, want, [i for i in fleet.instances.values() if not i.is_leaving], now)
    exclusive = exclusive_instance(fleet)
    if exclusive is not None:
        return None if exclusive.is_leaving else _all_of(fleet, want, [exclusive], now)
    chosen = _enough(_candidates(fleet, want, now, promised), shortage)
    return None if chosen is None else _victims(want, chosen, now)


def can_go_at(fleet: Fleet, victim: Instance, want: Want) -> Instant:
    """When a busy instance may be drained for a waiting model: patience over, residency had."""
    since = want.since
    if since is None or victim.ready_at is None:
        return Instant(float("inf"))
    known = fleet.catalogue.get(victim.model)
    residency = known.lifecycle.min_residency if known is not None else 0.0
    patience_over = since + want.model.queue.patience
    return Instant(max(patience_over, victim.ready_at + residency))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """An instance that could go, and from when on."""

    instance: Instance
    goes_at: Instant


def _is_served(fleet: Fleet, model: ModelId) -> bool:
    """It runs or is about to; nothing needs to be started for it."""
    instance = fleet.instance_of(model)
    return instance is not None and not instance.is_leaving


def _candidates(
    fleet: Fleet, want: Want, now: Instant, promised: frozenset[InstanceId]
) -> list[_Candidate]:
    """Idle ones in the order in which they go, then busy ones by when they may be drained."""
    ready = [
        i
        for i in fleet.instances.values()
        if i.state is State.READY and i.role is not Role.PINNED and i.id not in promised
    ]
    idle = sorted(
        (i for i in ready if not i.is_busy),
        key=lambda i: (i.idle_since, fleet.history_of(i.model).start_seconds or 0.0),
    )
    busy = sorted(
        (_Candidate(instance=i, goes_at=can_go_at(fleet, i, want)) for i in ready if i.is_busy),
        key=lambda c: (c.goes_at, c.instance.ready_at),
    )
    return [_Candidate(instance=i, goes_at=now) for i in idle] + [
        c for c in busy if c.goes_at != float("inf")
    ]


def _enough(candidates: list[_Candidate], shortage: int) -> list[_Candidate] | None:
    chosen: list[_Candidate] = []
    for candidate in candidates:
        if sum(c.instance.budget for c in chosen) >= shortage:
            break
        chosen.append(candidate)
    if sum(c.instance.budget for c in chosen) < shortage:
        return None
    return _without_superfluous(chosen, shortage)


def _without_superfluous(chosen: list[_Candidate], shortage: int) -> list[_Candidate]:
    """Spare what the larger ones made unnecessary: busy ones first, then the most recently used."""
    kept = list(chosen)
    for candidate in reversed(chosen):
        rest = sum(c.instance.budget for c in kept) - candidate.instance.budget
        if rest >= shortage:
            kept.remove(candidate)
    return kept


def _all_of(fleet: Fleet, want: Want, instances: list[Instance], now: Instant) -> Victims | None:
    """Every one of them, or none yet: a start cannot be interrupted by a mere wish."""
    if any(i.state is State.STARTING for i in instances):
        return None
    candidates = [
        _Candidate(instance=i, goes_at=can_go_at(fleet, i, want) if i.is_busy else now)
        for i in instances
    ]
    return _victims(want, candidates, now)


def _victims(want: Want, chosen: list[_Candidate], now: Instant) -> Victims:
    at = max((c.goes_at for c in chosen), default=now)
    return Victims(
        idle=tuple(c.instance for c in chosen if not c.instance.is_busy),
        busy=tuple(c.instance for c in chosen if c.instance.is_busy),
        at=None if at <= now else at,
    )
