"""One instance's life on the machine: launch, readiness, loss, and the wait until nothing is left.

Carries out what the owner decided and reports what happened; decides nothing. The task that runs
`Life.run` reports exactly one `InstanceExited`, as its last word.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from sparkd.core.catalogue import Model
from sparkd.core.events import EngineLost, Event, InstanceExited, InstanceReady, PhaseReached
from sparkd.core.failure import Failure, FailureCause
from sparkd.core.instance import InstanceId
from sparkd.core.quantities import Seconds
from sparkd.errors import HostError
from sparkd.supervisor.ports import Classifier, Engine, Launcher, Readiness, Upstream

log = logging.getLogger("sparkd.supervisor")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The edges that a life touches."""

    launcher: Launcher
    readiness: Readiness
    classify: Classifier
    phase_of: Callable[[str], str | None]


class Life:
    """From the decision to start until nothing is left."""

    def __init__(
        self, instance: InstanceId, model: Model, machine: Machine, tell: Callable[[Event], None]
    ):
        self.instance, self.model = instance, model
        self.upstream: Upstream | None = None
        self._machine, self._tell = machine, tell
        self._engine: Engine | None = None
        self._stop_grace: Seconds | None = None
        self._was_ready = False
        self._phase = ""

    def stop(self, grace: Seconds) -> None:
        """Takes effect as soon as there is something to stop."""
        self._stop_grace = grace
        if self._engine is not None:
            self._engine.stop(grace)

    async def run(self) -> None:
        failure: Failure | None = None
        try:
            await self._live()
        except HostError as err:
            failure = Failure(cause=FailureCause.LAUNCH_FAILED, detail=err.sentence())
        except Exception as err:
            log.exception("Cannot run instance %s of %s", self.instance, self.model.id)
            failure = Failure(cause=FailureCause.UNKNOWN, detail=f"internal error: {err}")
            await self._destroy()
        self._tell(InstanceExited(self.instance, failure))

    async def _live(self) -> None:
        engine = await self._machine.launcher.start(self.instance, self.model, self._line)
        self._engine, self.upstream = engine, engine.upstream
        if self._stop_grace is not None:
            engine.stop(self._stop_grace)
        async with asyncio.TaskGroup() as group:
            ready = group.create_task(self._until_ready(engine), name=f"ready {self.instance}")
            exit_ = await engine.wait_lost()
            ready.cancel("the engine is lost")
        self._tell(
            EngineLost(
                self.instance,
                self._machine.classify(exit_, engine.log_tail(), self._was_ready),
            )
        )
        await engine.wait_gone()

    async def _until_ready(self, engine: Engine) -> None:
        await self._machine.readiness.wait_ready(engine.upstream, self.model)
        engine.watch_vital()
        self._was_ready = True
        self._tell(InstanceReady(self.instance))

    async def _destroy(self) -> None:
        """A fault of ours must not leave an engine behind."""
        if self._engine is not None:
            self._engine.stop(Seconds(0.0))
            await self._engine.wait_gone()

    def _line(self, line: str) -> None:
        if self._was_ready:
            return  # a line per request: the search would cost as much as forwarding it
        phase = self._machine.phase_of(line)
        if phase is not None and phase != self._phase:
            self._phase = phase
            self._tell(PhaseReached(self.instance, phase))
