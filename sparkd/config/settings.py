"""Reads the whole configuration: `load` gives frozen settings, or every mistake at once.

Reads files only: it starts nothing, opens no socket and asks nothing about memory. It blocks, so
the daemon calls it in a thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sparkd.config.documents import Table, read_document
from sparkd.config.entries import (
    Defaults,
    Entry,
    check_budgets,
    check_names,
    read_entry,
    read_lifecycle,
    read_queue,
)
from sparkd.config.layers import find_model_files, read_model_file
from sparkd.config.names import Address
from sparkd.config.problems import Findings, Place
from sparkd.config.reader import Known, Reader
from sparkd.config.rows import (
    CONTROL_SOCKET,
    DAEMON_ROWS,
    LISTEN,
    LOADING_COMMENT_INTERVAL,
    LOG_FORMAT,
    LOG_LEVEL,
    MAX_BODY,
    MEMORY_LIMIT,
    MEMORY_RESERVE,
    MODEL_DIRECTORIES,
    MODEL_ROWS,
    RUN,
    RUNTIMES,
    SHUTDOWN_DRAIN,
    STATE,
    LogFormat,
    LogLevel,
)
from sparkd.config.runtimes import Runtimes
from sparkd.core.catalogue import Catalogue, Lifecycle, QueuePolicy
from sparkd.core.quantities import Bytes, Seconds
from sparkd.errors import ConfigError, Problem

DEFAULT_PATH = Path("/etc/sparkd/sparkd.toml")
_KNOWN = Known(DAEMON_ROWS, elsewhere=MODEL_ROWS, other_file="a model's own file")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """`[server]`: the faces of the daemon."""

    listen: tuple[Address, ...]
    control_socket: Path
    max_body: Bytes
    loading_comment_interval: Seconds
    drain_timeout: Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class PathSettings:
    """`[paths]`: where things lie; all absolute."""

    models: tuple[Path, ...]
    runtimes: Path
    state: Path
    run: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySettings:
    """`[memory]`; None means that the machine decides when the daemon starts."""

    limit: Bytes | None
    reserve: Bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """`[log]`."""

    level: LogLevel
    format: LogFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole configuration, valid and typed. `[defaults]` are part of the models by now."""

    server: ServerSettings
    paths: PathSettings
    memory: MemorySettings
    log: LogSettings
    catalogue: Catalogue


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Settings, what was odd without being wrong, and the files that were read."""

    settings: Settings
    warnings: tuple[Problem, ...]
    files: tuple[Path, ...]


def load(path: Path | None = None, *, strict: bool = False) -> Loaded:
    """The configuration of `path`, or of DEFAULT_PATH, which may be missing.

    `strict` makes an error of missing weights and runtimes. Without it they are warnings, and the
    model is kept: a request for it is answered `model_not_available`, the others are served.
    Raises ConfigError with every problem.
    """
    findings = Findings()
    file = Path.cwd() / (path or DEFAULT_PATH).expanduser()
    table: Table | None = Table(Place(file))
    if path is not None or _exists(file):
        table = read_document(file, findings)
    if table is None:
        raise ConfigError(findings.errors(strict=strict))
    settings = _read(table, findings)
    if errors := findings.errors(strict=strict):
        raise ConfigError(errors)
    return Loaded(
        settings=settings, warnings=findings.warnings(strict=strict), files=findings.files
    )


def _exists(file: Path) -> bool:
    try:
        return file.exists() or file.is_symlink()
    except OSError:
        return True  # reading it says why it cannot be looked at


def _read(table: Table, findings: Findings) -> Settings:
    reader = Reader(table, findings)
    reader.report_unknown_keys(_KNOWN)
    server, paths = _server(reader), _paths(reader)
    memory = MemorySettings(limit=reader.get(MEMORY_LIMIT), reserve=reader.get(MEMORY_RESERVE))
    log = LogSettings(level=reader.get(LOG_LEVEL), format=reader.get(LOG_FORMAT))
    defaults = Defaults(
        lifecycle=read_lifecycle(reader, Lifecycle(), "defaults"),
        queue=read_queue(reader, QueuePolicy(), "defaults"),
    )
    _check_directories(reader, paths)
    entries = _entries(paths, defaults, findings)
    check_names(entries, findings)
    check_budgets(entries, memory.limit, reader.place(MEMORY_LIMIT), findings)
    catalogue = Catalogue(tuple(entry.model for entry in entries))
    return Settings(server=server, paths=paths, memory=memory, log=log, catalogue=catalogue)


def _server(reader: Reader) -> ServerSettings:
    return ServerSettings(
        listen=reader.get(LISTEN),
        control_socket=reader.get(CONTROL_SOCKET),
        max_body=reader.get(MAX_BODY),
        loading_comment_interval=reader.get(LOADING_COMMENT_INTERVAL),
        drain_timeout=reader.get(SHUTDOWN_DRAIN),
    )


def _paths(reader: Reader) -> PathSettings:
    return PathSettings(
        models=reader.get(MODEL_DIRECTORIES),
        runtimes=reader.get(RUNTIMES),
        state=reader.get(STATE),
        run=reader.get(RUN),
    )


def _check_directories(reader: Reader, paths: PathSettings) -> None:
    """Directories of models that the operator named must be there; the usual ones need not."""
    place = reader.place(MODEL_DIRECTORIES)
    for index, directory in enumerate(paths.models):
        if directory not in MODEL_DIRECTORIES.default and not _exists(directory):
            hint = "make it, or take it out of the list"
            reader.problem(place.at(f"[{index}]"), f"there is no directory {directory}", hint)


def _entries(paths: PathSettings, defaults: Defaults, findings: Findings) -> list[Entry]:
    runtimes = Runtimes(paths.runtimes, findings)
    entries: list[Entry] = []
    for source in find_model_files(paths.models, findings):
        table = read_model_file(source, findings)
        if table is None:
            continue
        entry = read_entry(source, table, runtimes, defaults, findings)
        if entry is not None:
            entries.append(entry)
    return entries
