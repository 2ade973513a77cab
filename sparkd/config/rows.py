"""Every setting, one row each: where it is written, what it may be, its default, what it is for.

The reader, the tables of docs/configuration.md and the test of conf/sparkd.toml are made from these
rows. No default lives elsewhere, but for those of `sparkd.core.catalogue`, which are taken over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Generic, TypeVar

from sparkd.config import kinds, names
from sparkd.config.kinds import Kind
from sparkd.config.names import Address, Source
from sparkd.core.catalogue import Device, Lifecycle, QueuePolicy, Role, RuntimeKind, Task
from sparkd.core.quantities import MIB, Bytes, Seconds

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

#: Bytes in sockaddr_un.sun_path without the final NUL. Source: unix(7), Linux.
UNIX_PATH_MAX = 107
#: The longest path below the run directory: `/i/<12 characters>/t/<45 characters>`, where an engine
#: makes its own sockets in its TMPDIR; a longer one stops it with "ipc path is too long".
BELOW_RUN = len("/i/") + 12 + len("/t/") + 45


class LogLevel(StrEnum):
    """From which severity on the daemon logs."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """How the daemon writes a line of its log."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting(Generic[T_co]):
    """One row. `default` stands in while other problems are collected if `required`."""

    path: tuple[str, ...]
    kind: Kind[T_co]
    default: T_co
    doc: str
    required: bool = False
    unset: str = ""  # what happens when nothing is written and there is no value to show

    @property
    def key(self) -> str:
        return ".".join(self.path)

    def show_default(self) -> str:
        """The default as TOML; empty where there is none to show."""
        return "" if self.required or self.unset else self.kind.show(self.default)

    def under(self, *prefix: str) -> Setting[T_co]:
        return replace(self, path=(*prefix, *self.path))


_NO_VARIABLES: Mapping[str, str] = MappingProxyType({})
_LIFECYCLE = Lifecycle()
_QUEUE = QueuePolicy()

# ---------------------------------------------------------------- for every model, or one of them

KEEP_ALIVE = Setting(
    path=("lifecycle", "keep_alive"),
    kind=kinds.duration(),
    default=_LIFECYCLE.keep_alive,
    doc="How long an idle model stays loaded. `0`: until its memory is wanted.",
)
MIN_RESIDENCY = Setting(
    path=("lifecycle", "min_residency"),
    kind=kinds.duration(),
    default=_LIFECYCLE.min_residency,
    doc="A model that has become ready is not drained for another one before this has passed.",
)
START_TIMEOUT = Setting(
    path=("lifecycle", "start_timeout"),
    kind=kinds.duration(positive=True, zero="no engine is ready at once"),
    default=_LIFECYCLE.start_timeout,
    doc="A start that takes longer is ended and counts as failed.",
)
STOP_TIMEOUT = Setting(
    path=("lifecycle", "stop_timeout"),
    kind=kinds.duration(),
    default=_LIFECYCLE.stop_timeout,
    doc="Time between SIGTERM and SIGKILL for a model that was ready.",
)
DRAIN_TIMEOUT = Setting(
    path=("lifecycle", "drain_timeout"),
    kind=kinds.duration(),
    default=_LIFECYCLE.drain_timeout,
    doc="How long an operator's unload waits for running answers to end.",
)
MAX_WAITING = Setting(
    path=("queue", "max_waiting"),
    kind=kinds.integer(least=1, hint="0 would refuse every request for a cold model; such as 256"),
    default=_QUEUE.max_waiting,
    doc="Requests that may wait for the model; one more is answered 429.",
)
MAX_WAIT = Setting(
    path=("queue", "max_wait"),
    kind=kinds.duration(positive=True, zero="every request for a cold model would be refused"),
    default=_QUEUE.max_wait,
    doc="How long a request may wait for the model before it is answered 503.",
)
PATIENCE = Setting(
    path=("queue", "patience"),
    kind=kinds.duration(),
    default=_QUEUE.patience,
    doc="A request that has waited longer may have a busy model drained to make room.",
)
LIFECYCLE_ROWS = (KEEP_ALIVE, MIN_RESIDENCY, START_TIMEOUT, STOP_TIMEOUT, DRAIN_TIMEOUT)
QUEUE_ROWS = (MAX_WAITING, MAX_WAIT, PATIENCE)

# ---------------------------------------------------------------- sparkd.toml

LISTEN = Setting(
    path=("server", "listen"),
    kind=kinds.list_of(names.address(), least=1, why='such as ["127.0.0.1:8009"]'),
    default=(Address("127.0.0.1", 8009),),
    doc="Where clients connect. Loopback only. Port 0: any free one.",
)
CONTROL_SOCKET = Setting(
    path=("server", "control_socket"),
    kind=kinds.path(longest=UNIX_PATH_MAX, why="it is the path of a unix socket"),
    default=Path("/run/sparkd/control.sock"),
    doc="The unix socket that `sparkctl` talks to.",
)
MAX_BODY = Setting(
    path=("server", "max_body"),
    kind=kinds.size(),
    default=Bytes(64 * MIB),
    doc="The largest request body; a larger one is answered 413.",
)
LOADING_COMMENT_INTERVAL = Setting(
    path=("server", "loading_comment_interval"),
    kind=kinds.duration(positive=True, zero="comments would be sent without a pause"),
    default=Seconds(10.0),
    doc="While a model loads, a streaming client gets a comment this often.",
)
SHUTDOWN_DRAIN = Setting(
    path=("server", "drain_timeout"),
    kind=kinds.duration(),
    default=Seconds(60.0),
    doc="How long the daemon, told to stop, waits for running answers to end.",
)
MODEL_DIRECTORIES = Setting(
    path=("paths", "models"),
    kind=kinds.list_of(kinds.path(), least=1, why='such as ["/etc/sparkd/models.d"]'),
    default=(Path("/usr/share/sparkd/models"), Path("/etc/sparkd/models.d")),
    doc="Directories of model files; a file replaces those of its name in the ones before.",
)
RUNTIMES = Setting(
    path=("paths", "runtimes"),
    kind=kinds.path(),
    default=Path("/var/lib/sparkd/runtimes"),
    doc="Where installed runtimes lie, one directory each.",
)
STATE = Setting(
    path=("paths", "state"),
    kind=kinds.path(),
    default=Path("/var/lib/sparkd"),
    doc="What the daemon learns and keeps.",
)
RUN = Setting(
    path=("paths", "run"),
    kind=kinds.path(
        longest=UNIX_PATH_MAX - BELOW_RUN, why="engines make unix sockets in directories below it"
    ),
    default=Path("/run/sparkd"),
    doc="Sockets and temporary files of running engines; emptied with them.",
)
MEMORY_LIMIT: Setting[Bytes | None] = Setting(
    path=("memory", "limit"),
    kind=kinds.size(),
    default=None,
    unset="MemTotal minus `reserve`",
    doc="What the budgets of all running models may add up to.",
)
MEMORY_RESERVE: Setting[Bytes | None] = Setting(
    path=("memory", "reserve"),
    kind=kinds.size(positive=False),
    default=None,
    unset="8GiB, or a tenth of the memory if that is less",
    doc="What must stay available to the host itself.",
)
LOG_LEVEL = Setting(
    path=("log", "level"),
    kind=kinds.choice(LogLevel),
    default=LogLevel.INFO,
    doc="From which severity on the daemon logs.",
)
LOG_FORMAT = Setting(
    path=("log", "format"),
    kind=kinds.choice(LogFormat),
    default=LogFormat.TEXT,
    doc="Lines for people, or one JSON object per line.",
)

DAEMON_ROWS: tuple[Setting[object], ...] = (
    LISTEN,
    CONTROL_SOCKET,
    MAX_BODY,
    LOADING_COMMENT_INTERVAL,
    SHUTDOWN_DRAIN,
    MODEL_DIRECTORIES,
    RUNTIMES,
    STATE,
    RUN,
    MEMORY_LIMIT,
    MEMORY_RESERVE,
    *(row.under("defaults") for row in LIFECYCLE_ROWS),
    *(row.under("defaults") for row in QUEUE_ROWS),
    LOG_LEVEL,
    LOG_FORMAT,
)

# ---------------------------------------------------------------- <model id>.toml

SOURCE = Setting(
    path=("source",),
    kind=names.source(),
    default=Source("", local=False),
    required=True,
    doc="The weights: a directory (starts with `/`, `./`, `../` or `~`) or a hub name `org/name`.",
)
REVISION: Setting[str | None] = Setting(
    path=("revision",),
    kind=kinds.text(),
    default=None,
    unset="the hub's default branch",
    doc="Branch, tag or commit of a hub name.",
)
RUNTIME = Setting(
    path=("runtime",),
    kind=names.runtime_name(),
    default="",
    required=True,
    doc="The runtime that serves it, by name.",
)
TASK = Setting(
    path=("task",),
    kind=kinds.choice(Task),
    default=Task.GENERATE,
    doc="What the model does; decides its routes and how its readiness is tried.",
)
ROLE = Setting(
    path=("role",),
    kind=kinds.choice(Role),
    default=Role.NORMAL,
    doc="`exclusive` runs alone; `pinned` starts with the daemon and is never evicted.",
)
ALIASES: Setting[tuple[str, ...]] = Setting(
    path=("aliases",),
    kind=kinds.list_of(names.alias()),
    default=(),
    doc="Other names that clients may use.",
)
DESCRIPTION = Setting(
    path=("description",),
    kind=kinds.text(),
    default="",
    doc="One line for people.",
)
ENABLED = Setting(
    path=("enabled",),
    kind=kinds.boolean(),
    default=True,
    doc="`false` leaves the model out.",
)
ENGINE_ARGS: Setting[tuple[str, ...]] = Setting(
    path=("engine", "args"),
    kind=names.engine_args(),
    default=(),
    doc="More arguments of `vllm serve`, one word per item.",
)
ENGINE_ENV = Setting(
    path=("engine", "env"),
    kind=names.environment(),
    default=_NO_VARIABLES,
    doc="Environment variables of the engine.",
)
MAX_MODEL_LEN: Setting[int | None] = Setting(
    path=("engine", "max_model_len"),
    kind=kinds.integer(least=1, hint="tokens, such as 32768"),
    default=None,
    unset="the model's own",
    doc="Context length in tokens.",
)
KV_CACHE: Setting[Bytes | None] = Setting(
    path=("engine", "kv_cache"),
    kind=kinds.size(),
    default=None,
    unset="vLLM measures what is left",
    doc="Size of the KV cache.",
)
BUDGET = Setting(
    path=("memory", "budget"),
    kind=kinds.size(),
    default=Bytes(0),
    required=True,
    doc="All memory the model takes while it runs: weights, KV cache, overhead.",
)

MODEL_ROWS: tuple[Setting[object], ...] = (
    SOURCE,
    REVISION,
    RUNTIME,
    TASK,
    ROLE,
    ALIASES,
    DESCRIPTION,
    ENABLED,
    ENGINE_ARGS,
    ENGINE_ENV,
    MAX_MODEL_LEN,
    KV_CACHE,
    BUDGET,
    *LIFECYCLE_ROWS,
    *QUEUE_ROWS,
)

# ---------------------------------------------------------------- runtime.toml, written by tools

RUNTIME_NAME = Setting(
    path=("name",), kind=names.runtime_name(), default="", required=True, doc="Its name."
)
RUNTIME_KIND = Setting(
    path=("kind",),
    kind=kinds.choice(RuntimeKind),
    default=RuntimeKind.VENV,
    required=True,
    doc="How it lies on disk.",
)
RUNTIME_DEVICE = Setting(
    path=("device",),
    kind=kinds.choice(Device),
    default=Device.CPU,
    required=True,
    doc="What its vLLM computes on.",
)
RUNTIME_COMMAND: Setting[tuple[str, ...]] = Setting(
    path=("command",),
    kind=names.command(),
    default=("",),
    required=True,
    doc="How vLLM is called.",
)
RUNTIME_ENV = Setting(
    path=("env",),
    kind=names.environment(reserved=frozenset()),
    default=_NO_VARIABLES,
    doc="Variables of every engine of this runtime.",
)

RUNTIME_ROWS: tuple[Setting[object], ...] = (
    RUNTIME_NAME,
    RUNTIME_KIND,
    RUNTIME_DEVICE,
    RUNTIME_COMMAND,
    RUNTIME_ENV,
)
