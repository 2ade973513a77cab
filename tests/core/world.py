"""A pure world around the core: virtual time, a scripted machine, and its own account of the truth.

Everything the core decides is checked against that account (`tests.core.invariants`, `.at_rest`),
which is kept from events and decisions alone and shares no code with the rules.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from sparkd.core import events as e
from sparkd.core.catalogue import Catalogue, Model, ModelId
from sparkd.core.decisions import Decision, Drain, Grant, ReadMemory, Refuse, Start, Stop
from sparkd.core.failure import Failure
from sparkd.core.fleet import Fleet, apply
from sparkd.core.instance import InstanceId, Reason, TicketId
from sparkd.core.memory import MemoryView, Pool
from sparkd.core.planner import settle
from sparkd.core.quantities import Instant
from sparkd.errors import SparkdError
from tests.core import account, at_rest, invariants
from tests.core.truth import CRASH, Asked, Life, Machine, Truth, gib


class World:
    """Tells the core what happened, keeps the truth, and lets every invariant be checked."""

    def __init__(
        self,
        *models: Model,
        limit: float = 10,
        reserve: float = 0,
        total: float | None = None,
        answers_memory: bool = True,
    ):
        """Sizes in GiB. `answers_memory`: readings are answered in the instant they are asked."""
        self.now = Instant(1000.0)
        self.answers_memory = answers_memory
        self.decisions: list[Decision] = []  # all so far
        self.last: list[Decision] = []  # of the last `tell` and the reading that it asked for
        pool = Pool(limit=gib(limit), reserve=gib(reserve))
        machine = Machine(total=limit + reserve if total is None else total)
        self.truth = Truth(catalogue=Catalogue(models), pool=pool, machine=machine)
        self.fleet = Fleet(catalogue=self.truth.catalogue, pool=pool, boot="boot")
        self.look_again_at: Instant | None = None
        self._tickets = 0
        self._pending_view: MemoryView | None = None
        self.tell(e.TimePassed())

    # -- what happens ------------------------------------------------------------------------

    def tell(self, event: e.Event) -> list[Decision]:
        """The decisions that followed, a reading of the memory included."""
        self.last = []
        self._step(event)
        return self.last

    def _step(self, event: e.Event) -> None:
        account.note_event(self.truth, event, self.now)
        settled = settle(apply(self.fleet, event, self.now), self.now)
        for decision in settled.decisions:
            invariants.check_decision(self.truth, decision, self.now)
            account.note_decision(self.truth, decision, self.now)
            if isinstance(decision, ReadMemory):
                self._pending_view = self.truth.view()
        self.fleet, self.look_again_at = settled.fleet, settled.look_again_at
        self.decisions += settled.decisions
        self.last += settled.decisions
        at_rest.check_rest(self.truth, settled, self.now)
        if self.answers_memory and self.truth.reading_asked_at is not None:
            self._step(e.MemoryRead(self._pending_view))

    def answer_memory(self) -> list[Decision]:
        """The reading under way comes in, with what was true when it was asked for."""
        assert self.truth.reading_asked_at is not None, "no reading is under way"
        return self.tell(e.MemoryRead(self._pending_view))

    def advance(self, seconds: float) -> list[Decision]:
        """Time passes; the core is woken exactly when it asked for it."""
        until, seen = Instant(self.now + seconds), len(self.decisions)
        while self.look_again_at is not None and self.look_again_at <= until:
            self.now = self.look_again_at
            self.tell(e.TimePassed())
        self.now = until
        return self.decisions[seen:]

    def oversleep(self, seconds: float) -> None:
        """Time passes, and the timer has not fired yet: an event may come before it."""
        self.now = Instant(self.now + seconds)

    def want(self, name: str) -> TicketId:
        self._tickets += 1
        ticket = TicketId(self._tickets)
        self.tell(e.RequestArrived(ticket, ModelId(name)))
        return ticket

    def cancel(self, ticket: TicketId) -> list[Decision]:
        return self.tell(e.RequestCancelled(ticket))

    def ready(self, name: str) -> list[Decision]:
        return self.tell(e.InstanceReady(self.id_of(name)))

    def ended(self, name: str) -> list[Decision]:
        return self.tell(e.RequestEnded(self.id_of(name)))

    def lost(self, name: str, failure: Failure = CRASH) -> list[Decision]:
        return self.tell(e.EngineLost(self.id_of(name), failure))

    def exited(self, name: str, failure: Failure | None = None) -> list[Decision]:
        return self.tell(e.InstanceExited(self.id_of(name), failure))

    def fails(self, name: str) -> list[Decision]:
        """The engine dies without being asked, and is gone."""
        return self.lost(name) + self.exited(name)

    def unload(self, name: str, *, now: bool = False) -> list[Decision]:
        return self.tell(e.UnloadAsked(ModelId(name), now))

    def load(self, name: str) -> TicketId:
        self.tell(e.LoadAsked(ModelId(name)))
        return self.want(name)

    def reload(self, *models: Model, limit: float | None = None) -> list[Decision]:
        pool = self.truth.pool
        if limit is not None:
            pool = replace(pool, limit=gib(limit))
        return self.tell(e.CatalogueReplaced(Catalogue(models), pool))

    def shutdown(self, within: float) -> list[Decision]:
        return self.tell(e.ShutdownAsked(Instant(self.now + within)))

    # -- whole chapters ----------------------------------------------------------------------

    def serve(self, name: str, *, loading: float = 10) -> TicketId:
        """A cold model is asked for, loads, and now answers that request."""
        ticket = self.want(name)
        self.advance(loading)
        self.ready(name)
        assert self.asked(ticket).granted is not None, f"{name} did not serve: {self.last}"
        return ticket

    def idle(self, name: str, *, loading: float = 10) -> None:
        """The model is ready and has answered one request."""
        self.serve(name, loading=loading)
        self.ended(name)

    # -- what is known -----------------------------------------------------------------------

    def id_of(self, name: str) -> InstanceId:
        life = self.truth.life_of(ModelId(name))
        assert life is not None, f"{name} has no instance"
        return life.id

    def life(self, name: str) -> Life:
        return self.truth.lives[self.id_of(name)]

    def asked(self, ticket: TicketId) -> Asked:
        return self.truth.asked[ticket]

    def refusal(self, ticket: TicketId) -> SparkdError:
        error = self.asked(ticket).refused
        assert error is not None, f"{self.asked(ticket)} was not refused"
        return error

    def running(self) -> set[str]:
        """Models with an instance, whatever its state."""
        return {x.model.id for x in self.truth.lives.values()}

    def starting(self) -> set[str]:
        lives = self.truth.lives.values()
        return {x.model.id for x in lives if x.ready_at is None and not x.is_leaving}

    def leaving(self) -> dict[str, Reason]:
        """Models whose instance drains or stops by decision, and why."""
        reasons = {}
        for life in self.truth.lives.values():
            step = life.stopped or life.drained
            if step is not None:
                reasons[str(life.model.id)] = step[1].reason
        return reasons

    def kinds(self, decisions: Iterable[Decision]) -> list[str]:
        """Decisions in words: `start a`, `drain b starved`, `stop b evicted`."""
        return [self._words(d) for d in decisions]

    def _words(self, decision: Decision) -> str:
        names = {i.id: i.model for i in self.fleet.instances.values()}
        match decision:
            case Start(_, model):
                return f"start {model.id}"
            case Stop(instance, reason):
                return f"stop {names.get(instance, instance)} {reason}"
            case Drain(instance, reason):
                return f"drain {names.get(instance, instance)} {reason}"
            case Grant(_, instance):
                return f"grant {names.get(instance, instance)}"
            case Refuse(_, error):
                return f"refuse {error.code}"
            case _:
                return "read memory"
