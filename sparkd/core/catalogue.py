"""What can be run: models and runtimes as data, and names resolved to models. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import NewType

from sparkd.core.quantities import Bytes, Seconds
from sparkd.errors import ModelNotFoundError

ModelId = NewType("ModelId", str)


class Role(StrEnum):
    """How a model shares the pool with others."""

    NORMAL = "normal"
    EXCLUSIVE = "exclusive"  # runs alone; pinned models come back after it
    PINNED = "pinned"  # started with the daemon, never evicted, restarted when it dies


class Task(StrEnum):
    """What the engine does with a request; decides the one-token check and which routes exist."""

    GENERATE = "generate"
    EMBED = "embed"
    SCORE = "score"


class RuntimeKind(StrEnum):
    """How a runtime lies on disk."""

    VENV = "venv"
    ROOTFS = "rootfs"


class Device(StrEnum):
    """What the runtime's build of vLLM computes on."""

    CPU = "cpu"
    CUDA = "cuda"


_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """An installed vLLM. `root` is the venv's or the extracted image's directory."""

    name: str
    kind: RuntimeKind
    device: Device
    root: str
    command: tuple[str, ...]  # argv prefix that ends where `vllm serve`'s own arguments begin
    env: Mapping[str, str] = field(default_factory=lambda: _NOTHING)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSpec:
    """All that decides how a model's engine is started. Two equal specs start equal engines."""

    runtime: Runtime
    weights: str  # directory, or a repository name the engine finds in its own cache
    served_names: tuple[str, ...]  # the model's id first: answers carry it
    task: Task = Task.GENERATE
    max_model_len: int | None = None
    kv_cache: Bytes | None = None
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=lambda: _NOTHING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifecycle:
    """How long an instance may take and stay."""

    keep_alive: Seconds = Seconds(1200.0)  # 0 = never stopped for being idle
    min_residency: Seconds = Seconds(30.0)
    start_timeout: Seconds = Seconds(900.0)
    stop_timeout: Seconds = Seconds(20.0)  # SIGTERM to SIGKILL, once ready
    drain_timeout: Seconds = Seconds(60.0)  # how long an operator's unload waits for answers to end


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePolicy:
    """How requests for a cold model wait."""

    max_waiting: int = 256
    max_wait: Seconds = Seconds(1800.0)
    patience: Seconds = Seconds(60.0)  # waiting longer than this may drain a busy model


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One catalogue entry: what a client names."""

    id: ModelId
    launch: LaunchSpec
    budget: Bytes  # charged to the pool from the decision to start until the exit is seen
    role: Role = Role.NORMAL
    aliases: tuple[str, ...] = ()
    lifecycle: Lifecycle = field(default_factory=Lifecycle)
    queue: QueuePolicy = field(default_factory=QueuePolicy)
    description: str = ""


class Catalogue:
    """Immutable set of models, found by id or alias. Config guarantees that names are unique."""

    __slots__ = ("_by_id", "_by_name")

    def __init__(self, models: tuple[Model, ...] = ()):
        self._by_id = {model.id: model for model in models}
        names = {alias: model for model in models for alias in model.aliases}
        self._by_name: dict[str, Model] = names | {m.id: m for m in models}

    def __iter__(self) -> Iterator[Model]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, model_id: ModelId) -> Model | None:
        return self._by_id.get(model_id)

    def resolve(self, name: str) -> Model:
        """The model with this id or alias. Raises ModelNotFoundError that names the nearest."""
        model = self._by_name.get(name)
        if model is not None:
            return model
        near = difflib.get_close_matches(name, self._by_name, n=1)
        hint = f"did you mean '{near[0]}'?" if near else "GET /v1/models lists the models"
        raise ModelNotFoundError(f"cannot find model '{name}' in the catalogue", hint=hint)
