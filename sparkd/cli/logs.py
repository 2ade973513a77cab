"""`sparkctl logs`: what a model's engines printed."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from sparkd.cli.client import model_path
from sparkd.cli.invocation import Invocation, JsonFlag, ModelName, print_json
from sparkd.cli.terminal import harmless

Lines = Annotated[int, typer.Option("-n", "--lines", min=0, max=10_000, help="How many lines.")]
Follow = Annotated[bool, typer.Option("-f", "--follow", help="Go on until Ctrl-C.")]


def logs(
    ctx: typer.Context,
    model: ModelName,
    lines: Lines = 100,
    follow: Follow = False,
    json: JsonFlag = False,
) -> None:
    """Show what a model's engines printed."""
    call = Invocation.of(ctx, json)
    path = model_path(model, f"/logs?lines={lines}&follow={int(follow)}")
    printed = call.client.lines(path, follow=follow)
    if follow:
        _follow(printed, as_json=call.as_json)
    elif call.as_json:
        print_json({"model": model, "lines": list(printed)})
    else:
        for line in printed:
            print(_shown(line))


def _follow(printed: Iterator[str], *, as_json: bool) -> None:
    try:
        for line in printed:
            print(jsonlib.dumps({"line": line}) if as_json else _shown(line), flush=True)
    except KeyboardInterrupt:
        return  # that is how one stops following: no failure


def _shown(line: str) -> str:
    """A file gets the engine's own bytes, a terminal no escape sequence."""
    return harmless(line) if sys.stdout.isatty() else line
