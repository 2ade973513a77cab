"""One model's tree becomes a catalogue entry; then all entries are held against each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparkd.config.documents import Table
from sparkd.config.layers import ModelFile
from sparkd.config.problems import Findings, Place, Weight
from sparkd.config.reader import Known, Reader
from sparkd.config.rows import (
    ALIASES,
    BUDGET,
    DAEMON_ROWS,
    DESCRIPTION,
    DRAIN_TIMEOUT,
    ENABLED,
    ENGINE_ARGS,
    ENGINE_ENV,
    KEEP_ALIVE,
    KV_CACHE,
    MAX_MODEL_LEN,
    MAX_WAIT,
    MAX_WAITING,
    MIN_RESIDENCY,
    MODEL_ROWS,
    PATIENCE,
    REVISION,
    ROLE,
    RUNTIME,
    SOURCE,
    START_TIMEOUT,
    STOP_TIMEOUT,
    TASK,
)
from sparkd.config.runtimes import Runtimes
from sparkd.core.catalogue import LaunchSpec, Lifecycle, Model, QueuePolicy, Role
from sparkd.core.quantities import Bytes, format_duration, format_size

KNOWN_IN_MODEL = Known(MODEL_ROWS, elsewhere=DAEMON_ROWS, other_file="sparkd.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What holds for every model that says nothing else."""

    lifecycle: Lifecycle
    queue: QueuePolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A model with the places of what other entries or the pool may contradict."""

    model: Model
    file: Place
    aliases: Place
    budget: Place


def read_lifecycle(reader: Reader, base: Lifecycle, *prefix: str) -> Lifecycle:
    return Lifecycle(
        keep_alive=reader.get(KEEP_ALIVE.under(*prefix), base.keep_alive),
        min_residency=reader.get(MIN_RESIDENCY.under(*prefix), base.min_residency),
        start_timeout=reader.get(START_TIMEOUT.under(*prefix), base.start_timeout),
        stop_timeout=reader.get(STOP_TIMEOUT.under(*prefix), base.stop_timeout),
        drain_timeout=reader.get(DRAIN_TIMEOUT.under(*prefix), base.drain_timeout),
    )


def read_queue(reader: Reader, base: QueuePolicy, *prefix: str) -> QueuePolicy:
    return QueuePolicy(
        max_waiting=reader.get(MAX_WAITING.under(*prefix), base.max_waiting),
        max_wait=reader.get(MAX_WAIT.under(*prefix), base.max_wait),
        patience=reader.get(PATIENCE.under(*prefix), base.patience),
    )


def read_entry(
    source: ModelFile, table: Table, runtimes: Runtimes, defaults: Defaults, findings: Findings
) -> Entry | None:
    """None if the model is disabled; a wrong value has been added to `findings`."""
    reader = Reader(table, findings)
    reader.report_unknown_keys(KNOWN_IN_MODEL)
    enabled = reader.get(ENABLED)
    lifecycle = read_lifecycle(reader, defaults.lifecycle)
    aliases = reader.get(ALIASES)
    model = Model(
        id=source.id,
        launch=_launch(source, aliases, reader, runtimes, findings, enabled=enabled),
        budget=reader.get(BUDGET),
        role=reader.get(ROLE),
        aliases=aliases,
        lifecycle=lifecycle,
        queue=read_queue(reader, defaults.queue),
        description=reader.get(DESCRIPTION),
    )
    _check_entry(model, reader, findings)
    if not enabled:
        return None
    return Entry(
        model=model,
        file=Place(source.file),
        aliases=reader.place(ALIASES),
        budget=reader.place(BUDGET),
    )


def _launch(
    source: ModelFile, aliases: tuple[str, ...], reader: Reader, runtimes: Runtimes,
    findings: Findings, *, enabled: bool,
) -> LaunchSpec:  # fmt: skip
    weights = reader.get(SOURCE)
    if enabled and weights.local and not _is_directory(weights.weights):
        findings.add(
            reader.place(SOURCE),
            f"no directory of weights at {weights.weights}",
            "is the path right, and may the user that runs sparkd look there?",
            Weight.UNAVAILABLE,
        )
    # What a disabled model lacks hurts nobody, so its runtime is not looked for in earnest.
    runtime = runtimes.get(
        reader.get(RUNTIME), reader.place(RUNTIME), findings if enabled else Findings()
    )
    return LaunchSpec(
        runtime=runtime,
        weights=weights.weights,
        served_names=(source.id, *aliases),
        task=reader.get(TASK),
        max_model_len=reader.get(MAX_MODEL_LEN),
        kv_cache=reader.get(KV_CACHE),
        args=(*_revision(reader, local=weights.local), *reader.get(ENGINE_ARGS)),
        env=reader.get(ENGINE_ENV),
    )


def _revision(reader: Reader, *, local: bool) -> tuple[str, ...]:
    revision = reader.get(REVISION)
    if revision is None:
        return ()
    if local:
        hint = "remove it, or name the weights as org/name"
        reader.problem(reader.place(REVISION), "a directory has no revisions", hint)
    elif not revision or revision.startswith("-") or " " in revision:
        hint = "a branch, a tag or a commit"
        reader.problem(reader.place(REVISION), f"'{revision}' is not a revision", hint)
    return ("--revision", revision)


def _is_directory(path: str) -> bool:
    try:
        return Path(path).is_dir()
    except OSError:
        return False


def _check_entry(model: Model, reader: Reader, findings: Findings) -> None:
    place = reader.place(ALIASES)
    if model.id in model.aliases:
        index = model.aliases.index(model.id)
        message = f"'{model.id}' is the model's own id already"
        reader.problem(place.at(f"[{index}]"), message, "remove it from the aliases")
    if model.launch.kv_cache and 0 < model.budget <= model.launch.kv_cache:
        reader.problem(
            reader.place(KV_CACHE),
            f"a KV cache of {format_size(model.launch.kv_cache)} leaves no room for the weights "
            f"in a budget of {format_size(model.budget)}",
            "the budget holds weights, KV cache and overhead: raise it, or lower this",
        )
    life = model.lifecycle
    if 0 < life.keep_alive < life.min_residency:
        written = KEEP_ALIVE if reader.written(KEEP_ALIVE) else MIN_RESIDENCY
        findings.add(
            reader.place(written),
            f"keep_alive ({format_duration(life.keep_alive)}) is shorter than "
            f"min_residency ({format_duration(life.min_residency)})",
            "an idle model is kept for the longer of the two",
            Weight.WARNING,
        )


def check_names(entries: Sequence[Entry], findings: Findings) -> None:
    """No id or alias may mean two models."""
    owners = {str(entry.model.id): entry for entry in entries}
    for entry in entries:
        for index, alias in enumerate(entry.model.aliases):
            owner = owners.setdefault(alias, entry)
            if owner is entry:
                continue
            what = "id" if owner.model.id == alias else "alias"
            findings.add(
                entry.aliases.at(f"[{index}]"),
                f"'{alias}' is the {what} of another model: {owner.file}",
                "a name may mean one model only: remove it from one of the two",
            )


def check_budgets(
    entries: Iterable[Entry], limit: Bytes | None, limit_place: Place, findings: Findings
) -> None:
    """No model may need more than there is, nor all pinned ones together."""
    if limit is None:
        return
    pinned = [entry.model for entry in entries if entry.model.role is Role.PINNED]
    for entry in entries:
        if entry.model.budget > limit:
            findings.add(
                entry.budget,
                f"{format_size(entry.model.budget)} can never fit: "
                f"[memory] limit is {format_size(limit)}",
                f"lower it, or raise the limit in {limit_place.file}",
            )
    total = sum(model.budget for model in pinned)
    if len(pinned) > 1 and total > limit:
        findings.add(
            limit_place,
            f"the pinned models need {format_size(total)} together, and there are "
            f"{format_size(limit)}: {', '.join(model.id for model in pinned)}",
            "raise the limit, or pin fewer models",
        )
