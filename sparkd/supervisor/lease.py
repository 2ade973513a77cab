"""The right to send one request upstream: asked for, waited for, held and given back in one block.

    async with supervisor.lease(model.id) as lease:
        while (grant := await lease.granted(within=10)) is None:
            ...  # tell the client that it still waits
        ...      # one exchange with grant.upstream

Whatever ends the block (success, error, cancellation while waiting or after the grant) gives the
lease back; there is nothing to forget. Decides nothing: the owner does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from sparkd.core.catalogue import Model, ModelId
from sparkd.core.events import Event, RequestArrived, RequestCancelled, RequestEnded
from sparkd.core.instance import InstanceId, Reason, TicketId
from sparkd.core.quantities import Instant, Seconds
from sparkd.core.status import ModelState
from sparkd.errors import SparkdError
from sparkd.supervisor.ports import Upstream


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a lease gives: where to send the request. `cold`: it had to wait for a start."""

    instance: InstanceId
    model: Model
    upstream: Upstream
    cold: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What can be told to someone who waits for a model."""

    state: ModelState
    phase: str  # what the engine says it is doing, or what is waited for; may be empty
    position: int  # 1 for the model that starts next; 0 when no start is waited for
    waited: Seconds
    estimate: Seconds | None  # until the model is ready; None when unknown


class LeaseOwner(Protocol):
    """The part of the supervisor that a lease needs."""

    def now(self) -> Instant: ...

    def handle(self, event: Event) -> None: ...

    async def check_if_cold(self, model_id: ModelId) -> None: ...

    def enter(self, lease: Lease) -> TicketId: ...

    def leave(self, lease: Lease) -> None: ...

    def progress(self, model_id: ModelId, *, since: Instant | None = None) -> Progress: ...

    async def left_service(self, instance: InstanceId) -> None: ...


class Lease:
    """One request's stay in the supervisor; used once, by one task."""

    __slots__ = (
        "_arrived_at",
        "_granted_at",
        "_on_revoke",
        "_owner",
        "_result",
        "has_waited",
        "model",
        "ticket",
    )

    def __init__(self, owner: LeaseOwner, model: ModelId):
        self.model = model
        self.ticket: TicketId | None = None
        self._owner = owner
        self._result: asyncio.Future[Grant] = asyncio.get_running_loop().create_future()
        self._on_revoke: Callable[[Reason], None] | None = None
        self._arrived_at = self._granted_at = owner.now()
        self.has_waited = False  # set once the answer did not come at once

    async def __aenter__(self) -> Self:
        """Raises ModelUnavailableError when a cold model has no weights or no runtime."""
        await self._owner.check_if_cold(self.model)
        self._arrived_at = self._granted_at = self._owner.now()
        self.ticket = self._owner.enter(self)
        self._owner.handle(RequestArrived(self.ticket, self.model))
        self.has_waited = not self._result.done()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self.ticket is not None, "left a lease that was never entered"
        self._owner.leave(self)
        if not self._result.done():
            self._result.cancel()
            self._owner.handle(RequestCancelled(self.ticket))
        elif self._result.exception() is None:
            self._owner.handle(RequestEnded(self._result.result().instance))

    async def granted(self, within: float | None = None) -> Grant | None:
        """The grant; None when `within` seconds passed first: ask again.

        Raises:
            AdmissionError: it will not be served now (queue, memory, back-off, shutdown, unload).
            StartFailedError: the start it waited for failed.
        """
        if not self._result.done():
            await asyncio.wait([self._result], timeout=within)
        return self._result.result() if self._result.done() else None

    @property
    def waited(self) -> Seconds:
        """From arrival to the grant, or until now while it waits."""
        until = self._granted_at if self._result.done() else self._owner.now()
        return Seconds(until - self._arrived_at)

    def progress(self) -> Progress:
        return self._owner.progress(self.model, since=self._arrived_at)

    def on_revoke(self, callback: Callable[[Reason], None]) -> None:
        """`callback` runs at most once, just before the instance is stopped under this lease."""
        self._on_revoke = callback

    async def lost(self, within: float) -> bool:
        """True as soon as the granted instance is known to be dead, dying or stopping."""
        grant = self._result.result()
        try:
            async with asyncio.timeout(within):
                await self._owner.left_service(grant.instance)
        except TimeoutError:
            return False
        return True

    # For the owner -------------------------------------------------------------------------------

    @property
    def instance(self) -> InstanceId | None:
        """Set once granted."""
        granted = self._result.done() and not self._result.cancelled()
        if not granted or self._result.exception() is not None:
            return None
        return self._result.result().instance

    def grant(self, grant: Grant) -> None:
        self._granted_at = self._owner.now()
        self._result.set_result(grant)

    def refuse(self, error: SparkdError) -> None:
        self._granted_at = self._owner.now()
        self._result.set_exception(error)
        self._result.exception()  # marked as seen: the client may leave without asking for it

    def revoke(self, reason: Reason) -> None:
        callback, self._on_revoke = self._on_revoke, None
        if callback is not None:
            callback(reason)
