"""The `sparkctl` command: its global options and the table of its commands."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from sparkd import __version__
from sparkd.cli.catalogue import models
from sparkd.cli.client import DEFAULT_SOCKET
from sparkd.cli.invocation import (
    SOCKET_VARIABLE,
    Command,
    Invocation,
    JsonFlag,
    reported,
    with_signature_of,
)
from sparkd.cli.loading import load, unload
from sparkd.cli.logs import logs
from sparkd.cli.reload import reload
from sparkd.cli.status import status

#: In the order of `sparkctl --help`.
COMMANDS: dict[str, Command] = {
    "status": status,
    "models": models,
    "load": load,
    "unload": unload,
    "logs": logs,
    "reload": reload,
}

app = typer.Typer(
    help="Look at and steer the sparkd daemon.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _name, _command in COMMANDS.items():
    app.command(_name)(reported(_command))


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"sparkctl {__version__}")
        raise typer.Exit


def before(
    ctx: typer.Context,
    socket: Annotated[
        str,
        typer.Option(metavar="PATH", envvar=SOCKET_VARIABLE, help="The daemon's control socket."),
    ] = DEFAULT_SOCKET,
    json: JsonFlag = False,
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_show_version, help="Print the version."),
    ] = False,
) -> None:
    """Look at and steer the sparkd daemon."""
    ctx.obj = Invocation(socket=socket, as_json=json)


app.callback()(with_signature_of(before)(before))


def main() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that is not UTF-8 loses a dash only
    app(prog_name="sparkctl")


if __name__ == "__main__":
    main()
