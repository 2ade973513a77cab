"""What every command shares: where the daemon is, how to print, and how to end.

`--json` may stand before or behind the command.
"""

from __future__ import annotations

import functools
import inspect
import json as jsonlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import typer

from sparkd.cli.client import DEFAULT_SOCKET, Client
from sparkd.cli.failures import CommandError, ExitCode, interrupted, report

SOCKET_VARIABLE = "SPARKD_SOCKET"
COMPLETION_SECONDS = 0.5

Command = Callable[..., None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """One call of `sparkctl`."""

    socket: str
    as_json: bool

    @classmethod
    def of(cls, ctx: typer.Context, json: bool) -> Invocation:
        """From the command's context, whose `obj` is what stood before the command."""
        before: Invocation = ctx.obj
        return cls(socket=before.socket, as_json=before.as_json or json)

    @property
    def client(self) -> Client:
        return Client(self.socket)


def complete_model(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Names with their states; nothing when the daemon does not answer: a Tab prints no error."""
    given = ctx.find_root().params.get("socket")
    path = given or os.environ.get(SOCKET_VARIABLE) or DEFAULT_SOCKET
    try:
        answer = Client(path).get("/models", timeout=COMPLETION_SECONDS)
    except CommandError:
        return []
    models = answer.get("models", []) if isinstance(answer, dict) else []
    return [
        (name, model["state"])
        for model in models
        for name in (model["id"], *model["aliases"])
        if name.startswith(incomplete)
    ]


JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ModelName = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A model's id or alias.", autocompletion=complete_model),
]


def print_json(value: object) -> None:
    print(jsonlib.dumps(value, indent=2))


def reported(command: Command) -> Command:
    """The command, whose failures are shown and become exit codes."""

    @with_signature_of(command)
    @functools.wraps(command)
    def run(ctx: typer.Context, json: bool, **options: object) -> None:
        as_json = Invocation.of(ctx, json).as_json
        try:
            command(ctx=ctx, json=json, **options)
            sys.stdout.flush()
        except CommandError as error:
            raise _ended(error, as_json=as_json) from error
        except KeyboardInterrupt as error:
            raise _ended(interrupted("interrupted"), as_json=as_json) from error
        except BrokenPipeError as error:
            _discard_stdout()
            raise typer.Exit(ExitCode.OK) from error

    return run


def with_signature_of(command: Command) -> Callable[[Command], Command]:
    """Its annotations as types, not text. Source: typer 0.9.0 (Ubuntu 24.04) evaluates no text."""

    def mark(function: Command) -> Command:
        function.__signature__ = inspect.signature(command, eval_str=True)  # type: ignore[attr-defined]
        return function

    return mark


def _ended(error: CommandError, *, as_json: bool) -> typer.Exit:
    try:
        report(error, as_json=as_json)
    except BrokenPipeError:
        _discard_stdout()
    return typer.Exit(error.exit_code)


def _discard_stdout() -> None:
    """Whoever read us has enough (`| head`); Python's own flush at exit must not complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
