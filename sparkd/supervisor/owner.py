"""The one owner of instance state: every fact comes in here, and every effect starts here.

`Supervisor.handle` is synchronous and never re-entered: that is the critical section. There is no
lock, no queue, no poller, and one timer. Effects begin after the decision is recorded; each is a
named task of one group, and ends in exactly one event.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Coroutine
from types import TracebackType
from typing import assert_never

from sparkd.core import decisions as d
from sparkd.core import events as e
from sparkd.core.catalogue import Catalogue, Model, ModelId
from sparkd.core.estimates import queue_position, seconds_until_served
from sparkd.core.fleet import Fleet, apply
from sparkd.core.instance import InstanceId, Reason, TicketId
from sparkd.core.memory import MemoryView, Pool
from sparkd.core.planner import settle
from sparkd.core.quantities import Instant, Seconds
from sparkd.core.status import ModelState, state_of
from sparkd.errors import SparkdError
from sparkd.supervisor import journal
from sparkd.supervisor.lease import Grant, Lease, Progress
from sparkd.supervisor.life import Life, Machine
from sparkd.supervisor.ports import MemoryProbe

log = logging.getLogger("sparkd.supervisor")

#: A probe that does not answer within this is as good as one that failed.
_PROBE_TIMEOUT = 5.0


class Supervisor:
    """Owns the fleet. Use as an async context manager around the daemon's life."""

    def __init__(self, fleet: Fleet, machine: Machine, probe: MemoryProbe):
        self._fleet = fleet
        self._machine, self._probe = machine, probe
        self._loop = asyncio.get_running_loop()
        self._lives: dict[InstanceId, Life] = {}
        self._leases: dict[TicketId, Lease] = {}
        self._left_service: dict[InstanceId, asyncio.Event] = {}
        self._gone: dict[InstanceId, asyncio.Event] = {}
        self._empty = asyncio.Event()
        self._serials = itertools.count(1)
        self._timer: asyncio.TimerHandle | None = None
        self._group: asyncio.TaskGroup | None = None
        self._handling = False

    # What is known --------------------------------------------------------------------------------

    @property
    def fleet(self) -> Fleet:
        """A frozen snapshot."""
        return self._fleet

    def now(self) -> Instant:
        """The clock that all instants of the fleet belong to."""
        return Instant(self._loop.time())

    def resolve(self, name: str) -> Model:
        """The model with this id or alias. Raises ModelNotFoundError."""
        return self._fleet.catalogue.resolve(name)

    def progress(self, model_id: ModelId, *, since: Instant | None = None) -> Progress:
        """What can be told about the model; `since` is when the one who asks began to wait."""
        fleet, now = self._fleet, self.now()
        state, instance = state_of(fleet, model_id, now), fleet.instance_of(model_id)
        return Progress(
            state=state,
            phase=instance.phase if instance is not None else _what_is_waited_for(state),
            position=queue_position(fleet, model_id),
            waited=Seconds(0.0 if since is None else now - since),
            estimate=seconds_until_served(fleet, model_id, now),
        )

    # Requests and the operator's verbs ------------------------------------------------------------

    def lease(self, model_id: ModelId) -> Lease:
        """Use it in an `async with` block."""
        return Lease(self, model_id)

    async def load(self, model_id: ModelId, *, wait: bool) -> None:
        """Starts the model as if a request wanted it, whatever its last starts did.

        Cancelling a call that waits ends the waiting only: the model goes on loading.

        Raises:
            ModelUnavailableError: weights or runtime are missing.
            AdmissionError, StartFailedError: as for a request.
        """
        await self.check_if_cold(model_id)
        self.handle(e.LoadAsked(model_id))
        async with contextlib.AsyncExitStack() as stack:
            lease = await stack.enter_async_context(self.lease(model_id))
            await lease.granted(within=0)  # raises what is known at once
            self._spawn(self._wait_unattended(lease, stack.pop_all()), f"load {model_id}")
        if wait:
            await lease.granted()

    async def unload(self, model_id: ModelId, *, now: bool, wait: bool) -> bool:
        """False when there was nothing to unload. `now` does not wait for running answers."""
        instance = self._fleet.instance_of(model_id)
        was_wanted = bool(self._fleet.waiting_for(model_id))
        self.handle(e.UnloadAsked(model_id, now=now))
        if instance is None:
            return was_wanted
        if wait:
            await self._gone[instance.id].wait()
        return True

    def replace(self, catalogue: Catalogue, pool: Pool) -> None:
        """A validated configuration takes effect."""
        self.handle(e.CatalogueReplaced(catalogue, pool))

    # Life of the supervisor -----------------------------------------------------------------------

    async def __aenter__(self) -> Supervisor:
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        return self

    def begin(self) -> None:
        """Starts what should run without being asked for. Requests may come before."""
        self.handle(e.TimePassed())

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """After a fault the tasks are cancelled; the launcher's `close` ends what they watched."""
        assert self._group is not None
        if kind is None:
            await self.shut_down(Seconds(0.0))
        if self._timer is not None:
            self._timer.cancel()
        try:
            await self._group.__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            if group.exceptions != (error,):
                raise  # else the caller's own error goes on as it was, not wrapped

    async def shut_down(self, drain_timeout: Seconds) -> None:
        """No new work; running answers may take `drain_timeout`; returns when all is gone.

        May be called again with a shorter time.
        """
        self.handle(e.ShutdownAsked(Instant(self.now() + drain_timeout)))
        while self._fleet.instances:
            self._empty.clear()
            await self._empty.wait()

    # The critical section -------------------------------------------------------------------------

    def handle(self, event: e.Event) -> None:
        """Records a fact, decides what follows, and begins it."""
        assert not self._handling, f"{event} came while another event was handled"
        self._handling = True
        try:
            before, now = self._fleet, self.now()
            settled = settle(apply(before, event, now), now)
            self._fleet = settled.fleet
            self._look_again_at(settled.look_again_at)
            journal.tell(before, event, settled, now)
            for decision in settled.decisions:
                self._begin(decision)
            self._notice(event)
        finally:
            self._handling = False

    def _begin(self, decision: d.Decision) -> None:
        match decision:
            case d.Grant(ticket, instance):
                self._grant(ticket, instance)
            case d.Refuse(ticket, error):
                self._leases[ticket].refuse(error)
            case d.Start(instance, model):
                self._start(instance, model)
            case d.Stop(instance, reason, grace):
                for lease in self._leases_on(instance):
                    self._revoke(lease, reason)  # first: who asks why it is lost must know
                self._left_service[instance].set()
                self._lives[instance].stop(grace)
            case d.Drain():
                pass  # what a drain means is in the fleet: no further grant
            case d.ReadMemory():
                self._spawn(self._read_memory(), "read memory")
            case _:
                assert_never(decision)

    def _grant(self, ticket: TicketId, instance: InstanceId) -> None:
        lease, life = self._leases[ticket], self._lives[instance]
        assert life.upstream is not None, f"{instance} is ready without an upstream"
        lease.grant(
            Grant(
                instance=instance,
                model=life.model,
                upstream=life.upstream,
                cold=lease.has_waited,
            )
        )

    def _revoke(self, lease: Lease, reason: Reason) -> None:
        """What is decided must begin: a callback that fails may not keep others from being told."""
        try:
            lease.revoke(reason)
        except Exception:
            log.exception("Cannot tell request %s that its instance stops", lease.ticket)

    def _start(self, instance: InstanceId, model: Model) -> None:
        life = Life(instance, model, self._machine, self._tell)
        self._lives[instance] = life
        self._left_service[instance] = asyncio.Event()
        self._gone[instance] = asyncio.Event()
        self._spawn(life.run(), f"run {model.id} {instance}")

    def _notice(self, event: e.Event) -> None:
        """Wakes those who wait for the end of an instance."""
        match event:
            case e.EngineLost(instance):
                self._left_service[instance].set()
            case e.InstanceExited(instance):
                del self._lives[instance]
                self._left_service.pop(instance).set()
                self._gone.pop(instance).set()
                if not self._fleet.instances:
                    self._empty.set()
            case _:
                pass

    def _look_again_at(self, at: Instant | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if at is None else self._loop.call_at(at, self._time_passed)

    def _time_passed(self) -> None:
        try:
            self.handle(e.TimePassed())
        except Exception as fault:
            # The loop would only log it, and no deadline would ever be looked at again.
            log.exception("Cannot go on after a fault of the timer")
            self._spawn(_end_with(fault), "fault of the timer")

    def _tell(self, event: e.Event) -> None:
        """News from a life's task. Late news is harmless; the fleet knows what is over."""
        self.handle(event)

    # Effects --------------------------------------------------------------------------------------

    def _spawn(self, effect: Coroutine[None, None, None], name: str) -> None:
        assert self._group is not None, "the supervisor is used outside of its block"
        self._group.create_task(effect, name=name)

    async def _read_memory(self) -> None:
        view: MemoryView | None = None
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT):
                view = await self._probe.read()
        except (OSError, SparkdError, TimeoutError) as err:
            log.warning("Cannot read the memory of this machine: %s", err)
        self.handle(e.MemoryRead(view))

    async def _wait_unattended(
        self, lease: Lease, block: contextlib.AsyncExitStack[bool | None]
    ) -> None:
        """Holds a ticket in the queue for an operator who did not stay."""
        try:
            async with block:
                await lease.granted()
        except SparkdError as err:
            log.warning("Cannot load model %s: %s", lease.model, err.sentence())

    # For leases -----------------------------------------------------------------------------------

    async def check_if_cold(self, model_id: ModelId) -> None:
        """Raises ModelUnavailableError before anything is scheduled for a hopeless model."""
        model = self._fleet.catalogue.get(model_id)
        if model is not None and self._fleet.instance_of(model_id) is None:
            await self._machine.launcher.check(model.launch)

    def enter(self, lease: Lease) -> TicketId:
        ticket = TicketId(next(self._serials))
        self._leases[ticket] = lease
        return ticket

    def leave(self, lease: Lease) -> None:
        if lease.ticket is not None:
            self._leases.pop(lease.ticket, None)

    async def left_service(self, instance: InstanceId) -> None:
        """Returns once the instance is dead, dying or told to stop."""
        event = self._left_service.get(instance)
        if event is not None:
            await event.wait()

    def _leases_on(self, instance: InstanceId) -> list[Lease]:
        return [lease for lease in self._leases.values() if lease.instance == instance]


async def _end_with(fault: Exception) -> None:
    """A task that fails ends the whole supervisor, and with it the daemon."""
    raise fault


def _what_is_waited_for(state: ModelState) -> str:
    match state:
        case ModelState.QUEUED:
            return "waiting for room"
        case ModelState.FAILED:
            return "waiting for the next attempt"
        case _:
            return ""
