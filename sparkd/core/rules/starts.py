"""Rules about instances that have to come: starts, and the room made for them. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from sparkd.core import room
from sparkd.core.catalogue import Model, Role
from sparkd.core.decisions import Drain, NotBefore, ReadMemory, Start
from sparkd.core.fleet import Fleet
from sparkd.core.instance import InstanceId, Reason, State
from sparkd.core.memory import MemoryView
from sparkd.core.quantities import Instant, Seconds
from sparkd.core.rules.verdict import Verdict, stop

#: A memory reading older than this says nothing about a start that begins now.
MEMORY_FRESH_FOR = Seconds(1.0)


def start_wanted(fleet: Fleet, now: Instant) -> Verdict:
    """Starts what fits, and makes room for what does not; nobody overtakes at another's cost."""
    if fleet.closing is not None:
        return None
    times: list[Instant] = []
    for verdict in _walk(fleet, now):
        match verdict:
            case NotBefore(at):
                times.append(at)
            case None | ():
                pass
            case decisions:
                return decisions
    return NotBefore(min(times)) if times else None


def _walk(fleet: Fleet, now: Instant) -> Iterator[Verdict]:
    """One verdict per wanted model that has one; the first that decides changes all after it."""
    wants = room.wanted(fleet)
    if not wants:  # as after nearly every event: each request for a warm model brings two
        return
    room_now = int(fleet.headroom)
    room_later = certain = room_now + room.leaving_budget(fleet)
    for model in room.stepped_back(fleet, wants):
        room_now -= _needs_now(fleet, model, room_now)
        room_later -= model.budget
    promised: frozenset[InstanceId] = frozenset()
    for want in wants:
        if want.model.role is Role.EXCLUSIVE:
            if want is wants[0]:  # beside it nothing runs: it would delay any earlier one
                yield _have_it_alone(fleet, want, now)
            return  # whatever started now would have to go again before it
        model, own = want.model, fleet.instance_of(want.model.id)
        resting = room.resting_until(fleet, model.id, now)
        fits_later = model.budget <= room_later and not _excluded(fleet, model)
        if resting is not None:
            yield NotBefore(resting)
        elif own is None and fits_later and model.budget <= room_now:
            yield _start(fleet, want, now)
        elif not fits_later:
            shortage = int(model.budget - room_later)
            victims = room.victims_for(fleet, want, shortage, now, promised)
            if victims is not None:
                if model.budget <= certain + victims.budget:
                    yield _evict(fleet, victims)
                # else it also needs what an earlier one will make room with, and has not yet
                room_later += victims.budget
                promised |= victims.ids
        room_now -= _needs_now(fleet, model, room_now)
        room_later -= model.budget


def _needs_now(fleet: Fleet, model: Model, room_now: int) -> int:
    """What a model could take at once, were it not for its back-off or a reading of the memory.

    One that waits for others to leave needs nothing of what is free before they have left.
    """
    can_start = fleet.instance_of(model.id) is None and model.budget <= room_now
    return model.budget if can_start else 0


def _excluded(fleet: Fleet, model: Model) -> bool:
    """An exclusive instance shares the pool with nobody."""
    exclusive = room.exclusive_instance(fleet)
    return exclusive is not None and exclusive.model != model.id


def _have_it_alone(fleet: Fleet, want: room.Want, now: Instant) -> Verdict:
    """An exclusive model starts when everything else is gone, and makes it go."""
    resting = room.resting_until(fleet, want.model.id, now)
    if resting is not None:
        return NotBefore(resting)
    if not fleet.instances:
        return _start(fleet, want, now)
    victims = room.victims_for(fleet, want, want.model.budget, now)
    return None if victims is None else _evict(fleet, victims)


def _evict(fleet: Fleet, victims: room.Victims) -> Verdict:
    if victims.at is not None:
        return NotBefore(victims.at)
    stops = tuple(stop(fleet, i, Reason.EVICTED) for i in victims.idle)
    return (*stops, *(Drain(i.id, Reason.STARVED) for i in victims.busy))


def _start(fleet: Fleet, want: room.Want, now: Instant) -> Verdict:
    """The ledger has room; the probe may veto: others on this machine take memory too."""
    asked_at, as_of = fleet.memory_asked_at, fleet.memory_as_of
    if asked_at is not None:
        return None  # the answer is an event
    if as_of is None or (fleet.last_exit_at is not None and as_of < fleet.last_exit_at):
        return (ReadMemory(),)
    stale_at = Instant(as_of + MEMORY_FRESH_FOR)
    if stale_at <= now:
        return (ReadMemory(),)
    if fleet.memory is None:
        return NotBefore(stale_at)  # the probe failed: unknown is never free
    missing = _missing_memory(fleet, want.model, fleet.memory, as_of)
    if missing <= 0:
        return (Start(fleet.next_instance, want.model),)
    if not room.leaving_budget(fleet):
        victims = room.victims_for(fleet, want, missing, now)
        if victims is not None and victims.at is None and not victims.busy and victims.idle:
            return _evict(fleet, victims)
    return NotBefore(stale_at)


def _missing_memory(fleet: Fleet, model: Model, memory: MemoryView, as_of: Instant) -> int:
    """Bytes that the machine lacks for this start beside the host's reserve.

    What was still loading when the memory was read may not have taken all its budget by then.
    """
    loading = sum(
        i.budget
        for i in fleet.instances.values()
        if i.state is State.STARTING or (i.ready_at is not None and i.ready_at > as_of)
    )
    return model.budget - (memory.available - fleet.pool.reserve - loading)
