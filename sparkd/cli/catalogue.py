"""`sparkctl models`: the catalogue with the state of each entry."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import typer

from sparkd.cli.invocation import Invocation, JsonFlag, print_json
from sparkd.cli.terminal import print_table
from sparkd.core.quantities import format_size

if TYPE_CHECKING:
    from sparkd.api.shapes import ModelShape, ModelsShape

_HEADER = ("MODEL", "STATE", "ROLE", "BUDGET", "CONTEXT", "ALIASES", "DESCRIPTION")


def models(ctx: typer.Context, json: JsonFlag = False) -> None:
    """List the models of the catalogue."""
    call = Invocation.of(ctx, json)
    found = cast("ModelsShape", call.client.get("/models"))
    if call.as_json:
        print_json(found)
    elif found["models"]:
        print_table(_HEADER, [_row(model) for model in found["models"]])
    else:
        print("the catalogue is empty")


def _row(model: ModelShape) -> tuple[str, ...]:
    context = model["max_model_len"]
    return (
        model["id"],
        model["state"],
        model["role"],
        format_size(model["budget_bytes"]),
        "–" if context is None else str(context),
        " ".join(model["aliases"]) or "–",
        model["description"],
    )
