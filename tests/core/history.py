"""Random histories of a fleet: anything may happen in any order, late, twice, or not at all."""

from __future__ import annotations

import random
from collections.abc import Callable

from sparkd.core import events as e
from sparkd.core.catalogue import Lifecycle, Model, ModelId, QueuePolicy, Role
from sparkd.core.instance import InstanceId, TicketId
from sparkd.core.quantities import Instant, Seconds
from tests.core.truth import CRASH, Life, a_model
from tests.core.world import World

#: Instants at which things end by themselves are favoured: boundaries are where mistakes live.
_STEPS = (0.0, 0.1, 0.5, 1.0, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 100.0, 400.0)


class History:
    """One random life of a daemon, the same for the same seed."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.world = World(
            *self._models(), limit=10, reserve=1, total=self.random.choice((11, 11, 12)),
            answers_memory=self.random.random() < 0.5,
        )  # fmt: skip
        self.gone: list[InstanceId] = [InstanceId("another-daemon-1")]
        choices: list[tuple[int, Callable[[], None]]] = [
            (24, self._want),
            (5, self._cancel),
            (12, self._get_ready),
            (14, self._end_request),
            (12, self._exit_stopped),
            (10, self._answer),
            (14, self._pass_time),
            (5, self._wake),
            (3, self._lose),
            (2, self._vanish),
            (1, self._fail_again_and_again),
            (3, self._late_news),
            (2, self._unload),
            (1, self._load),
            (1, self._reload),
            (2, self._disturb_memory),
        ]
        self._acts = [act for _, act in choices]
        self._weights = [weight for weight, _ in choices]

    def run(self, steps: int) -> None:
        for act in self.random.choices(self._acts, self._weights, k=steps):
            act()

    # -- what may happen ---------------------------------------------------------------------

    def _models(self) -> list[Model]:
        choose = self.random.choice
        models = []
        for name in "abcdef"[: self.random.randint(2, 5)]:
            role = choose((Role.NORMAL,) * 6 + (Role.EXCLUSIVE, Role.PINNED))
            lifecycle = Lifecycle(
                keep_alive=Seconds(choose((0.0, 5.0, 60.0, 300.0))),
                min_residency=Seconds(choose((0.0, 30.0))),
                start_timeout=Seconds(choose((20.0, 400.0))),
                drain_timeout=Seconds(choose((0.0, 10.0, 60.0))),
            )
            queue = QueuePolicy(
                max_waiting=choose((1, 3, 256)),
                max_wait=Seconds(choose((30.0, 3000.0))),
                patience=Seconds(choose((0.0, 10.0, 60.0))),
            )
            budget = choose((1, 2, 3) if role is Role.PINNED else (1, 3, 4, 5, 6, 7, 10, 12))
            revision = self.random.randint(0, 1)
            models.append(
                a_model(
                    name, budget, role=role, revision=revision, lifecycle=lifecycle, queue=queue
                )
            )
        return models

    def _model(self) -> str:
        models = [*self.world.truth.catalogue]
        if not models or self.random.random() < 0.02:
            return "unheard-of"
        return str(self.random.choice(models).id)

    def _life(self, wanted: Callable[[Life], bool]) -> Life | None:
        lives = [x for x in self.world.truth.lives.values() if wanted(x)]
        return self.random.choice(lives) if lives else None

    def _want(self) -> None:
        self.world.want(self._model())

    def _cancel(self) -> None:
        waiting = [*self.world.truth.waiting, TicketId(0)]
        self.world.cancel(self.random.choice(waiting))

    def _get_ready(self) -> None:
        life = self._life(lambda x: x.ready_at is None)
        if life is not None:
            self.world.tell(e.PhaseReached(life.id, "loading weights"))
            self.world.tell(e.InstanceReady(life.id))

    def _end_request(self) -> None:
        life = self._life(lambda x: x.in_flight > 0)
        if life is not None:
            self.world.tell(e.RequestEnded(life.id))

    def _exit_stopped(self) -> None:
        life = self._life(lambda x: x.is_ending)
        if life is not None:
            self._exit(life)

    def _exit(self, life: Life) -> None:
        self.gone.append(life.id)
        self.world.tell(e.InstanceExited(life.id))

    def _answer(self) -> None:
        if self.world.truth.reading_asked_at is not None:
            self.world.answer_memory()

    def _pass_time(self) -> None:
        self.world.advance(self.random.choice(_STEPS))

    def _wake(self) -> None:
        """Straight to the next instant that matters, or to just before it."""
        at = self.world.look_again_at
        if at is not None:
            early = self.random.choice((0.0, 0.01))
            self.world.advance(max(at - self.world.now - early, 0.0))

    def _lose(self) -> None:
        life = self._life(lambda x: True)
        if life is not None:
            self.world.tell(e.EngineLost(life.id, CRASH))

    def _vanish(self) -> None:
        life = self._life(lambda x: True)
        if life is not None:
            self._exit(life)

    def _fail_again_and_again(self) -> None:
        """As long as it takes for the breaker to open, or for someone else to get the room."""
        name = self._model()
        for pause in (1.0, 2.0, 30.0, 60.0)[: self.random.randint(3, 4)]:
            self.world.want(name)
            self._answer()
            life = self.world.truth.life_of(ModelId(name))
            if life is None or life.ready_at is not None:
                return
            self._exit(life)
            self.world.advance(pause)
        self.world.want(name)

    def _late_news(self) -> None:
        life = self.random.choice(self.gone)
        news = (
            e.RequestEnded(life), e.PhaseReached(life, "late"), e.InstanceReady(life),
            e.EngineLost(life, CRASH), e.InstanceExited(life, CRASH),
        )  # fmt: skip
        before = self.world.fleet
        self.world.tell(self.random.choice(news))
        assert self.world.fleet.histories == before.histories, "late news taught something"

    def _unload(self) -> None:
        self.world.unload(self._model(), now=self.random.random() < 0.3)

    def _load(self) -> None:
        self.world.load(self._model())

    def _reload(self) -> None:
        models = [*self.world.truth.catalogue]
        changed = {m.id: m for m in self._models()}
        kept = [changed.get(m.id, m) if self.random.random() < 0.5 else m for m in models]
        dropped = self.random.random() < 0.3
        limit = self.random.choice((8.0, 10.0, 10.0))
        self.world.reload(*kept[1:] if dropped else kept, limit=limit)

    def _disturb_memory(self) -> None:
        machine = self.world.truth.machine
        machine.broken = self.random.random() < 0.2
        machine.foreign = self.random.choice((0.0, 0.0, 2.0, 6.0, 11.0))

    # -- the end of it -----------------------------------------------------------------------

    def calm_down(self) -> None:
        """Everything works from now on: whoever waits is served, or refused for a good reason."""
        world = self.world
        world.truth.machine.broken, world.truth.machine.foreign = False, 0.0
        for _ in range(400):
            if not world.truth.waiting:
                return
            self._all_goes_well()
            if world.look_again_at is not None:
                world.advance(max(min(world.look_again_at - world.now, 30.0), 0.0))
        raise AssertionError(f"wedged: {world.truth.waiting} {world.truth.lives}")

    def _all_goes_well(self) -> None:
        world = self.world
        while True:
            lives = world.truth.lives.values()
            ending = next((x for x in lives if x.is_ending), None)
            starting = next((x for x in lives if x.ready_at is None and not x.is_leaving), None)
            busy = next((x for x in lives if x.in_flight), None)
            if world.truth.reading_asked_at is not None:
                world.answer_memory()
            elif ending is not None:
                world.tell(e.InstanceExited(ending.id))
            elif starting is not None:
                world.tell(e.InstanceReady(starting.id))
            elif busy is not None:
                world.tell(e.RequestEnded(busy.id))
            else:
                return

    def shut_down(self) -> None:
        """Whatever ran ends by the deadline; only then does the engine that hangs let go."""
        world = self.world
        within = self.random.choice((0.0, 5.0, 50.0))
        world.tell(e.ShutdownAsked(Instant(world.now + within)))
        world.want(self._model())
        if self.random.random() < 0.5:
            self._get_ready()
            self._end_request()
        world.advance(within)
        assert all(x.is_ending for x in world.truth.lives.values()), "it outlived the deadline"
        self._all_goes_well()
        assert not world.fleet.instances
        assert world.look_again_at is None, "nothing is left to wait for"
