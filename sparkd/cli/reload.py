"""`sparkctl reload`: the daemon reads its configuration again."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, cast

import typer

from sparkd.cli.invocation import Invocation, JsonFlag, print_json
from sparkd.cli.terminal import harmless

if TYPE_CHECKING:
    from sparkd.api.shapes import ReloadShape


def reload(ctx: typer.Context, json: JsonFlag = False) -> None:
    """Read the configuration again; restart only the models that changed."""
    call = Invocation.of(ctx, json)
    outcome = cast("ReloadShape", call.client.post("/reload", {}))
    if call.as_json:
        print_json(outcome)
        return
    for warning in outcome["warnings"]:
        hint = f"  (hint: {warning['hint']})" if warning["hint"] else ""
        print(harmless(f"warning: {warning['where']}: {warning['message']}{hint}"), file=sys.stderr)
    print(harmless(_summary(outcome)))


def _summary(outcome: ReloadShape) -> str:
    parts = [
        f"{word}: {', '.join(ids)}"
        for word, ids in (
            ("changed", outcome["changed"]),
            ("added", outcome["added"]),
            ("removed", outcome["removed"]),
        )
        if ids
    ]
    return "; ".join(parts) or "nothing changed"
