"""Why an instance ended when nobody asked it to: the facts, and how they are named. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FailureCause(StrEnum):
    """The classes of failure an operator acts on differently."""

    BAD_FLAG = "bad_flag"  # argparse refused the command line
    WRONG_ARGUMENTS = (
        "wrong_arguments"  # flags understood, values do not go with this model or machine
    )
    MISSING_WEIGHTS = "missing_weights"
    GATED_REPO = "gated_repo"
    OUT_OF_MEMORY = "out_of_memory"
    ADDRESS_IN_USE = "address_in_use"  # port or socket
    LAUNCH_FAILED = "launch_failed"  # the process could not be created at all
    TIMEOUT = "timeout"  # not ready within start_timeout
    KILLED = "killed"  # ended by a signal nobody here sent
    ENGINE_DIED = "engine_died"  # ended by itself after it had been ready; exit status may be 0
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One failed life. Exactly one of `exit_status` and `signal` is set when the process ended."""

    cause: FailureCause
    detail: str  # one line for people: the root cause's own words where found
    exit_status: int | None = None
    signal: int | None = None
    log_tail: tuple[str, ...] = ()  # oldest first

    def how(self) -> str:
        """`exit status 1`, `signal 9`, or what is known instead."""
        if self.signal is not None:
            return f"signal {self.signal}"
        return "no exit status" if self.exit_status is None else f"exit status {self.exit_status}"
