"""`sparkctl status`: what runs, what waits, what failed, and how the memory is spent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

import typer

from sparkd.cli.invocation import Invocation, JsonFlag, print_json
from sparkd.cli.terminal import age, harmless, print_table
from sparkd.core.quantities import format_size

if TYPE_CHECKING:
    from sparkd.api.shapes import FailureShape, InstanceShape, PoolShape, StatusShape

_HEADER = ("MODEL", "STATE", "SINCE", "BUDGET", "IN-FLIGHT", "NOTE")


def status(ctx: typer.Context, json: JsonFlag = False) -> None:
    """Show what runs, what waits and what failed."""
    call = Invocation.of(ctx, json)
    found = cast("StatusShape", call.client.get("/status"))
    if call.as_json:
        print_json(found)
        return
    rows = list(_rows(found))
    if rows:
        print_table(_HEADER, rows)
    else:
        print("no model is loaded")
    print()
    print(_pool_line(found["pool"]))
    ending = ", stopping" if found["stopping"] else ""
    print(
        f"sparkd {harmless(found['version'])}, pid {found['pid']}, "
        f"up {age(found['uptime_seconds'])}{ending}"
    )


def _rows(found: StatusShape) -> Iterator[tuple[str, ...]]:
    """One row per model that is not just cold: its instance, else its queue, else its failure."""
    waiting = {entry["model"]: entry for entry in found["waiting"]}
    failures = {entry["model"]: entry for entry in found["failures"]}
    for instance in found["instances"]:
        queued = waiting.pop(instance["model"], None)
        failures.pop(instance["model"], None)
        yield (
            instance["model"],
            instance["state"],
            age(_since(instance)),
            format_size(instance["budget_bytes"]),
            str(instance["in_flight"]),
            _note(instance, 0 if queued is None else queued["requests"]),
        )
    for queued in waiting.values():
        failures.pop(queued["model"], None)
        note = _waiting(queued["requests"])
        yield (queued["model"], "queued", age(queued["oldest_seconds"]), "–", "–", note)
    for failure in failures.values():
        state = "failed" if failure["retry_in_seconds"] else "cold"
        yield (failure["model"], state, "–", "–", "–", _failure_note(failure))


def _since(instance: InstanceShape) -> float:
    ready = instance["ready_seconds"]
    return instance["started_seconds"] if ready is None else ready


def _note(instance: InstanceShape, waiting: int) -> str:
    idle = instance["idle_seconds"]
    parts = [
        instance["phase"],
        instance["reason"] or "",
        f"idle {age(idle)}" if idle is not None else "",
        _waiting(waiting) if waiting else "",
    ]
    return ", ".join(part for part in parts if part)


def _waiting(requests: int) -> str:
    return f"{requests} waiting"


def _failure_note(failure: FailureShape) -> str:
    retry = failure["retry_in_seconds"]
    again = f", next try in {age(retry)}" if retry else ""
    return (
        f"failed: {failure['detail']} ({failure['cause']}, {failure['failures']} in a row{again})"
    )


def _pool_line(pool: PoolShape) -> str:
    line = (
        f"pool: {format_size(pool['charged_bytes'])} of {format_size(pool['limit_bytes'])} "
        f"charged, {format_size(pool['headroom_bytes'])} headroom"
    )
    available = pool["available_bytes"]
    return line if available is None else f"{line}, {format_size(available)} available"
