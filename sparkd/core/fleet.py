"""Everything sparkd knows about its instances, and how facts and decisions change it. Pure.

`apply` records what happened, `commit` records what was decided; neither decides anything itself
(`sparkd.core.planner` does). News about an instance that is not in the fleet is late and changes
nothing: its id is never used again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeVar, assert_never

from sparkd.core import events as e
from sparkd.core.backoff import HEALTHY_AFTER, pause_after
from sparkd.core.catalogue import Catalogue, Lifecycle, ModelId, Role
from sparkd.core.decisions import Decision, Drain, Grant, ReadMemory, Refuse, Start, Stop
from sparkd.core.failure import Failure, FailureCause
from sparkd.core.instance import TRANSITIONS, Instance, InstanceId, Reason, State, TicketId
from sparkd.core.memory import MemoryView, Pool
from sparkd.core.quantities import Bytes, Instant, Seconds, format_duration
from sparkd.errors import ModelUnloadedError, SparkdError, StartFailedError, StartTimeoutError


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """One request that waits for a lease. `doom` is set once it is known that it waits in vain."""

    id: TicketId
    model: ModelId
    arrived_at: Instant
    doom: SparkdError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What earlier lives of a model taught."""

    failures: int = 0  # in a row
    not_before: Instant | None = None  # no start before
    last_failure: Failure | None = None
    start_seconds: Seconds | None = None  # from decision to ready, learned


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """A snapshot. Mappings are replaced, never changed."""

    catalogue: Catalogue
    pool: Pool
    boot: str  # prefix of instance ids, new for each daemon
    serial: int = 0  # of the last instance
    instances: Mapping[InstanceId, Instance] = field(default_factory=lambda: MappingProxyType({}))
    #: Waiting ones only, in arrival order; a granted ticket is one of `Instance.in_flight`.
    tickets: Mapping[TicketId, Ticket] = field(default_factory=lambda: MappingProxyType({}))
    histories: Mapping[ModelId, History] = field(default_factory=lambda: MappingProxyType({}))
    held: frozenset[ModelId] = frozenset()  # pinned ones an operator unloaded
    closing: Instant | None = None  # set when the daemon stops: what runs then is stopped
    memory: MemoryView | None = None
    memory_as_of: Instant | None = None  # when the last finished reading was asked for
    memory_asked_at: Instant | None = None  # set while a reading is under way
    last_exit_at: Instant | None = None  # memory read before this says nothing about now

    def instance_of(self, model_id: ModelId) -> Instance | None:
        """The model's only instance; a second one is never started while the first is there."""
        return next((i for i in self.instances.values() if i.model == model_id), None)

    def waiting_for(self, model_id: ModelId) -> tuple[Ticket, ...]:
        """In arrival order."""
        return tuple(t for t in self.tickets.values() if t.model == model_id)

    def history_of(self, model_id: ModelId) -> History:
        return self.histories.get(model_id, _NO_HISTORY)

    def lifecycle_of(self, model_id: ModelId) -> Lifecycle:
        """By today's catalogue; the defaults for a model that left it."""
        model = self.catalogue.get(model_id)
        return _DEFAULTS if model is None else model.lifecycle

    @property
    def charged(self) -> Bytes:
        return Bytes(sum(i.budget for i in self.instances.values()))

    @property
    def headroom(self) -> Bytes:
        """Negative after a reload that lowered the limit."""
        return Bytes(self.pool.limit - self.charged)

    @property
    def next_instance(self) -> InstanceId:
        return InstanceId(f"{self.boot}-{self.serial + 1}")


_NO_HISTORY = History()
_DEFAULTS = Lifecycle()


def apply(fleet: Fleet, event: e.Event, now: Instant) -> Fleet:
    """The fleet after `event`."""
    match event:
        case e.RequestArrived(ticket, model):
            arrived = Ticket(id=ticket, model=model, arrived_at=now)
            return replace(
                fleet, tickets={**fleet.tickets, ticket: arrived}, held=fleet.held - {model}
            )
        case e.RequestCancelled(ticket):
            return replace(fleet, tickets=_without(fleet.tickets, [ticket]))
        case e.MemoryRead(view):
            as_of = now if fleet.memory_asked_at is None else fleet.memory_asked_at
            return replace(fleet, memory=view, memory_as_of=as_of, memory_asked_at=None)
        case e.LoadAsked(model):
            return _forgive(replace(fleet, held=fleet.held - {model}), [model])
        case e.UnloadAsked(model, at_once):
            return _unload_asked(fleet, model, now, at_once=at_once)
        case e.CatalogueReplaced(catalogue, pool):
            replaced = replace(fleet, catalogue=catalogue, pool=pool)
            return _forgive(replaced, fleet.histories)
        case e.ShutdownAsked(deadline):
            sooner = deadline if fleet.closing is None else min(deadline, fleet.closing)
            return replace(fleet, closing=sooner)
        case e.TimePassed():
            return fleet
        case (
            e.RequestEnded()
            | e.PhaseReached()
            | e.InstanceReady()
            | e.EngineLost()
            | e.InstanceExited()
        ):
            instance = fleet.instances.get(event.instance)
            return fleet if instance is None else _news(fleet, instance, event, now)
        case _:
            assert_never(event)


def commit(fleet: Fleet, decisions: Iterable[Decision], now: Instant) -> Fleet:
    """The fleet once `decisions` are taken; their effects begin later."""
    for decision in decisions:
        fleet = _commit_one(fleet, decision, now)
    return fleet


def _commit_one(fleet: Fleet, decision: Decision, now: Instant) -> Fleet:
    match decision:
        case Grant(ticket, instance_id):
            instance = fleet.instances[instance_id]
            granted = replace(
                instance, in_flight=instance.in_flight + 1, served=instance.served + 1,
                idle_since=None,
            )  # fmt: skip
            return replace(
                fleet,
                instances={**fleet.instances, granted.id: granted},
                tickets=_without(fleet.tickets, [ticket]),
            )
        case Refuse(ticket):
            return replace(fleet, tickets=_without(fleet.tickets, [ticket]))
        case Start(instance_id, model):
            started = Instance(
                id=instance_id, model=model.id, launch=model.launch, budget=model.budget,
                role=model.role, state=State.STARTING, started_at=now,
            )  # fmt: skip
            return replace(_with(fleet, started), serial=fleet.serial + 1)
        case Drain(instance_id, reason, until):
            instance = fleet.instances[instance_id]
            return _with(fleet, _moved(instance, State.DRAINING, reason=reason, drain_until=until))
        case Stop(instance_id, reason):
            return _commit_stop(fleet, fleet.instances[instance_id], reason, now)
        case ReadMemory():
            return replace(fleet, memory_asked_at=now)
        case _:
            assert_never(decision)


def _commit_stop(fleet: Fleet, instance: Instance, reason: Reason, now: Instant) -> Fleet:
    fleet = _with(fleet, _moved(instance, State.STOPPING, reason=reason))
    if reason is not Reason.TIMEOUT:
        return fleet
    seconds = format_duration(now - instance.started_at)
    failure = Failure(cause=FailureCause.TIMEOUT, detail=f"not ready after {seconds}")
    return _failed(fleet, instance, failure, now)


_InstanceNews = e.RequestEnded | e.PhaseReached | e.InstanceReady | e.EngineLost | e.InstanceExited


def _news(fleet: Fleet, instance: Instance, event: _InstanceNews, now: Instant) -> Fleet:
    match event:
        case e.RequestEnded():
            left = instance.in_flight - 1
            assert left >= 0, f"{instance.id}: a lease ended twice"
            is_idle = left == 0 and instance.state is not State.STOPPING
            idle_since = now if is_idle else None
            return _with(fleet, replace(instance, in_flight=left, idle_since=idle_since))
        case e.PhaseReached(phase=phase):
            starting = instance.state is State.STARTING
            return _with(fleet, replace(instance, phase=phase)) if starting else fleet
        case e.InstanceReady():
            return _ready(fleet, instance, now)
        case e.EngineLost(failure=failure):
            return _lost(fleet, instance, failure, now)
        case e.InstanceExited(failure=failure):
            return _exited(fleet, instance, failure, now)
        case _:
            assert_never(event)


def _ready(fleet: Fleet, instance: Instance, now: Instant) -> Fleet:
    if instance.state is not State.STARTING:
        return fleet  # it was told to stop while the last probe was under way
    history = fleet.history_of(instance.model)
    took, before = now - instance.started_at, history.start_seconds
    learned = Seconds(took if before is None else (took + before) / 2)
    fleet = _with_history(fleet, instance.model, replace(history, start_seconds=learned))
    return _with(fleet, _moved(instance, State.READY, ready_at=now, idle_since=now, phase=""))


def _lost(fleet: Fleet, instance: Instance, failure: Failure, now: Instant) -> Fleet:
    """An engine that was told to stop may die as it likes; any other death is a failure."""
    if instance.state is State.STOPPING:
        return fleet
    dying = replace(
        instance, state=State.STOPPING, reason=Reason.FAILED, failure=failure, idle_since=None
    )
    return _failed(_with(fleet, dying), instance, failure, now)


def _exited(fleet: Fleet, instance: Instance, failure: Failure | None, now: Instant) -> Fleet:
    if instance.state is not State.STOPPING:
        unseen = Failure(cause=FailureCause.UNKNOWN, detail="ended without being asked")
        fleet = _lost(fleet, instance, failure or unseen, now)
    elif instance.failure is None and _was_healthy(instance, now):
        fleet = _forgive(fleet, [instance.model])
    gone = _without(fleet.instances, [instance.id])
    return replace(fleet, instances=gone, last_exit_at=now)


def _failed(fleet: Fleet, instance: Instance, failure: Failure, now: Instant) -> Fleet:
    """The model rests, and those who waited for this start are told why at once."""
    history = fleet.history_of(instance.model)
    failures = 1 if _was_healthy(instance, now) else history.failures + 1
    pause = pause_after(failures)
    history = replace(
        history, failures=failures, last_failure=failure, not_before=Instant(now + pause)
    )
    fleet = _with_history(fleet, instance.model, history)
    if instance.state is not State.STARTING:
        return fleet
    return _doom(fleet, instance.model, start_error(instance.model, failure, pause))


def start_error(model: ModelId, failure: Failure, retry_after: Seconds) -> StartFailedError:
    """What a client is told when the start it waited for failed."""
    error = StartTimeoutError if failure.cause is FailureCause.TIMEOUT else StartFailedError
    return error(
        f"cannot start model '{model}': {failure.detail} ({failure.cause}, {failure.how()})",
        cause=failure.cause,
        log_tail=failure.log_tail,
        hint=f"sparkctl logs {model}",
        retry_after=retry_after,
    )


def _unload_asked(fleet: Fleet, model: ModelId, now: Instant, *, at_once: bool) -> Fleet:
    known = fleet.catalogue.get(model)
    if known is not None and known.role is Role.PINNED:
        fleet = replace(fleet, held=fleet.held | {model})
    instance = fleet.instance_of(model)
    if instance is not None:
        asked = replace(instance, unload_asked=True, unload_now=at_once or instance.unload_now)
        if asked.state is State.DRAINING:
            asked = _bounded(asked, Instant(now + fleet.lifecycle_of(model).drain_timeout))
        fleet = _with(fleet, asked)
    error = ModelUnloadedError(f"cannot serve model '{model}': an operator unloaded it")
    return _doom(fleet, model, error)


def _bounded(draining: Instance, until: Instant) -> Instance:
    """A drain that would wait for its answers for ever becomes an operator's, which does not."""
    earlier = until if draining.drain_until is None else min(until, draining.drain_until)
    return replace(draining, reason=Reason.UNLOADED, drain_until=earlier)


def _doom(fleet: Fleet, model: ModelId, error: SparkdError) -> Fleet:
    doomed = {t.id: replace(t, doom=error) for t in fleet.waiting_for(model) if t.doom is None}
    return replace(fleet, tickets={**fleet.tickets, **doomed})


def _forgive(fleet: Fleet, models: Iterable[ModelId]) -> Fleet:
    histories = dict(fleet.histories)
    for model in models:
        if model in histories:
            histories[model] = replace(histories[model], failures=0, not_before=None)
    return replace(fleet, histories=histories)


def _was_healthy(instance: Instance, now: Instant) -> bool:
    return instance.ready_at is not None and now - instance.ready_at >= HEALTHY_AFTER


def _moved(
    instance: Instance,
    state: State,
    *,
    reason: Reason | None = None,
    drain_until: Instant | None = None,
    ready_at: Instant | None = None,
    idle_since: Instant | None = None,
    phase: str | None = None,
) -> Instance:
    assert state in TRANSITIONS[instance.state], f"{instance.id}: {instance.state} -> {state}"
    return replace(
        instance,
        state=state,
        reason=instance.reason if reason is None else reason,
        drain_until=drain_until,
        ready_at=instance.ready_at if ready_at is None else ready_at,
        idle_since=idle_since if idle_since is not None or state is State.STOPPING
        else instance.idle_since,
        phase=instance.phase if phase is None else phase,
    )  # fmt: skip


def _with(fleet: Fleet, instance: Instance) -> Fleet:
    return replace(fleet, instances={**fleet.instances, instance.id: instance})


def _with_history(fleet: Fleet, model: ModelId, history: History) -> Fleet:
    return replace(fleet, histories={**fleet.histories, model: history})


K = TypeVar("K")
V = TypeVar("V")


def _without(mapping: Mapping[K, V], keys: Iterable[K]) -> dict[K, V]:
    gone = set(keys)
    return {key: value for key, value in mapping.items() if key not in gone}
