"""How `sparkctl` fails: its exit codes, and how a failure is shown to people and to programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from enum import IntEnum

from sparkd.cli.terminal import harmless


class ExitCode(IntEnum):
    """Part of the interface: documented in docs/sparkctl.md, never renumbered."""

    OK = 0
    REFUSED = 1  # the daemon said no, or tried and failed
    USAGE = 2  # the command line itself is wrong
    UNREACHABLE = 3  # no daemon answers on the socket
    UNKNOWN_MODEL = 4
    INTERRUPTED = 130  # Ctrl-C


class CommandError(Exception):
    """A command that failed. `fields` are what the JSON error object has besides the message."""

    def __init__(
        self,
        exit_code: ExitCode,
        message: str,
        *,
        hint: str | None = None,
        fields: Mapping[str, object],
    ):
        super().__init__(message)
        self.exit_code = exit_code
        self.message = message
        self.hint = hint
        self.fields = dict(fields)


def unreachable(message: str, hint: str) -> CommandError:
    return CommandError(
        ExitCode.UNREACHABLE,
        message,
        hint=hint,
        fields={"type": "connection_error", "param": None, "code": "daemon_unreachable"},
    )


def interrupted(message: str, hint: str | None = None) -> CommandError:
    return CommandError(
        ExitCode.INTERRUPTED,
        message,
        hint=hint,
        fields={"type": "interrupted", "param": None, "code": "interrupted"},
    )


def refused(error: Mapping[str, object], retry_after: str | None) -> CommandError:
    """From the daemon's error object."""
    message, hint = _sentence_and_hint(error)
    unknown = error.get("code") == "model_not_found"
    return CommandError(
        ExitCode.UNKNOWN_MODEL if unknown else ExitCode.REFUSED,
        message,
        hint=hint or (f"try again in {retry_after}s" if retry_after else None),
        fields=error,
    )


def _sentence_and_hint(error: Mapping[str, object]) -> tuple[str, str | None]:
    """Undoes `SparkdError.sentence()`. A list of problems has the hint of each in its own line."""
    said = str(error.get("message", ""))
    message, found, hint = said.rpartition(" (hint: ")
    if not found or not hint.endswith(")") or "problems" in error:
        return said, None
    return message, hint.removesuffix(")")


def report(error: CommandError, *, as_json: bool) -> None:
    """People read stderr, programs stdout."""
    print(f"sparkctl: {harmless(error.message)}", file=sys.stderr)
    log_tail = error.fields.get("log_tail")
    if isinstance(log_tail, list) and log_tail:
        print("the engine's last lines:", file=sys.stderr)
        for line in log_tail:
            print(f"  {harmless(str(line))}", file=sys.stderr)
    if error.hint:
        print(f"hint: {harmless(error.hint)}", file=sys.stderr)
    if as_json:
        body = {"message": error.message, "hint": error.hint, **error.fields}
        print(json.dumps({"error": body}, indent=2), flush=True)
