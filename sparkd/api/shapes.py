"""The JSON that the control API answers with: types only, shared with every client of it.

Sizes are bytes, times are seconds that have passed (or, `retry_in`, will); null is "not known" or
"does not apply". Fields may be added; none is renamed or changes its meaning.
"""

from __future__ import annotations

from typing import TypedDict


class PoolShape(TypedDict):
    """The memory that models share. `total` and `available` are measured, the rest is the ledger.

    `headroom` is negative after a reload that lowered the limit below what is charged.
    """

    limit_bytes: int
    reserve_bytes: int
    charged_bytes: int
    headroom_bytes: int
    total_bytes: int | None
    available_bytes: int | None


class InstanceShape(TypedDict):
    """One launched server. `reason` says why it drains or stops."""

    id: str
    model: str
    state: str
    phase: str
    in_flight: int
    served: int
    budget_bytes: int
    started_seconds: float
    ready_seconds: float | None
    idle_seconds: float | None
    reason: str | None


class WaitingShape(TypedDict):
    """The requests that wait for one model."""

    model: str
    requests: int
    oldest_seconds: float


class FailureShape(TypedDict):
    """Why a model's last start or life failed, and when the next start is allowed."""

    model: str
    cause: str
    detail: str
    failures: int
    retry_in_seconds: float | None


class StatusShape(TypedDict):
    """`GET /status`."""

    version: str
    pid: int
    uptime_seconds: float
    stopping: bool
    pool: PoolShape
    instances: list[InstanceShape]
    waiting: list[WaitingShape]
    failures: list[FailureShape]


class ModelShape(TypedDict):
    """One catalogue entry with its state. `position` is its place among the models to start."""

    id: str
    aliases: list[str]
    description: str
    role: str
    task: str
    runtime: str
    max_model_len: int | None
    budget_bytes: int
    keep_alive_seconds: float
    state: str
    phase: str
    position: int
    estimate_seconds: float | None
    waiting: int
    instance: InstanceShape | None
    failure: FailureShape | None


class ModelsShape(TypedDict):
    """`GET /models`, in catalogue order."""

    models: list[ModelShape]


class UnloadShape(TypedDict):
    """`POST /models/{id}/unload`. `unloaded` is false when nothing was loaded."""

    unloaded: bool
    model: ModelShape


class ProblemShape(TypedDict):
    """One remark about the operator's files."""

    where: str
    message: str
    hint: str | None


class ReloadShape(TypedDict):
    """`POST /reload`: ids of models, and what is questionable but was accepted."""

    changed: list[str]
    added: list[str]
    removed: list[str]
    warnings: list[ProblemShape]
