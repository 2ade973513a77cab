"""How long a request will probably wait, from what is known: learned start times and states. Pure.

An estimate is given only when it rests on something: None is an honest answer.
"""

from __future__ import annotations

from sparkd.core import room
from sparkd.core.catalogue import ModelId, Role
from sparkd.core.fleet import Fleet
from sparkd.core.instance import Instance, State
from sparkd.core.quantities import Instant, Seconds

#: What a start that takes longer than the learned time is still expected to take.
_LATE_START_REMAINS = 1.0


def seconds_until_served(fleet: Fleet, model_id: ModelId, now: Instant) -> Seconds | None:
    """Seconds until a request for the model gets its lease; 0 when ready, None if unknown."""
    instance = fleet.instance_of(model_id)
    if instance is not None and instance.state is State.READY:
        return Seconds(0.0)
    if instance is not None and instance.state is State.STARTING:
        return _start_remains(fleet, instance, now)
    own = fleet.history_of(model_id).start_seconds
    blocked = _seconds_until_room(fleet, model_id, now)
    if own is None or blocked is None:
        return None
    rest = room.resting_until(fleet, model_id, now)
    pause = 0.0 if rest is None else rest - now
    return Seconds(max(blocked, pause) + own)


def queue_position(fleet: Fleet, model_id: ModelId) -> int:
    """1 for the model whose start comes next; 0 when no start is waited for."""
    order = [want.model.id for want in room.wanted(fleet)]
    return order.index(model_id) + 1 if model_id in order else 0


def _start_remains(fleet: Fleet, instance: Instance, now: Instant) -> Seconds | None:
    learned = fleet.history_of(instance.model).start_seconds
    if learned is None:
        return None
    return Seconds(max(learned - (now - instance.started_at), _LATE_START_REMAINS))


def _seconds_until_room(fleet: Fleet, model_id: ModelId, now: Instant) -> Seconds | None:
    """Until the model's own start can begin, if that follows from the clock alone."""
    model = fleet.catalogue.get(model_id)
    if model is None:
        return None
    want = next((w for w in room.wanted(fleet) if w.model.id == model_id), None)
    want = want or room.Want(model=model, since=now)
    shortage = model.budget - fleet.headroom - room.leaving_budget(fleet)
    shares = model.role is not Role.EXCLUSIVE and room.exclusive_instance(fleet) is None
    if shares and shortage <= 0:
        return Seconds(0.0)
    victims = room.victims_for(fleet, want, int(shortage), now)
    if victims is None:
        return None
    return Seconds(0.0 if victims.at is None else victims.at - now)
