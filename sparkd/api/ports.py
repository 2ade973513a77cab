"""What the control API needs from the rest of the daemon, as Protocols. It decides nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from sparkd.core.catalogue import Model, ModelId
from sparkd.core.fleet import Fleet
from sparkd.core.quantities import Instant
from sparkd.errors import Problem
from sparkd.supervisor.lease import Progress


class Operations(Protocol):
    """The operator's verbs and the facts behind them; `sparkd.supervisor.owner` satisfies it."""

    @property
    def fleet(self) -> Fleet: ...

    def now(self) -> Instant: ...

    def resolve(self, name: str) -> Model:
        """The model with this id or alias. Raises ModelNotFoundError."""
        ...

    def progress(self, model_id: ModelId) -> Progress: ...

    async def load(self, model_id: ModelId, *, wait: bool) -> None:
        """Cancelling a call that waits ends the waiting only: the model goes on loading."""
        ...

    async def unload(self, model_id: ModelId, *, now: bool, wait: bool) -> bool:
        """False when nothing was loaded. Cancelling ends the waiting only."""
        ...


class LogSource(Protocol):
    """What a model's engines printed."""

    async def tail(self, model: ModelId, lines: int, /) -> tuple[str, ...]:
        """The last lines up to its return, oldest first; empty when the model has not run."""
        ...

    def follow(self, model: ModelId, /) -> AbstractContextManager[AsyncIterator[str]]:
        """Every line printed after the block was entered, also of later instances."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadOutcome:
    """What a configuration that was read again changes."""

    changed: tuple[ModelId, ...] = ()
    added: tuple[ModelId, ...] = ()
    removed: tuple[ModelId, ...] = ()
    warnings: tuple[Problem, ...] = ()


#: Reads the configuration again and lets it take effect. Raises ConfigError: nothing changed then.
Reload = Callable[[], Awaitable[ReloadOutcome]]
