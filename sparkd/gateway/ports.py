"""What the gateway needs of the supervisor; `sparkd.supervisor.owner.Supervisor` satisfies it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from sparkd.core.catalogue import Model, ModelId
from sparkd.core.fleet import Fleet
from sparkd.core.instance import Reason
from sparkd.core.quantities import Instant, Seconds
from sparkd.supervisor.lease import Grant, Progress


class Lease(Protocol):
    """The right to send one request to an instance, from the moment one asks for it."""

    @property
    def waited(self) -> Seconds:
        """From arrival to grant."""
        ...

    async def granted(self, within: float | None = None) -> Grant | None:
        """None when `within` seconds passed first: call again. Raises why there is no grant."""
        ...

    def progress(self) -> Progress: ...

    def on_revoke(self, callback: Callable[[Reason], None]) -> None:
        """Called at most once, at once, when the instance is about to be stopped under us."""
        ...

    async def lost(self, within: float) -> bool:
        """True as soon as the instance is known to be dead or dying; False after `within`."""
        ...


class Supervisor(Protocol):
    """Who decides which instance answers, and when."""

    @property
    def fleet(self) -> Fleet: ...

    def now(self) -> Instant: ...

    def resolve(self, name: str) -> Model: ...

    def lease(self, model_id: ModelId) -> AbstractAsyncContextManager[Lease]: ...
