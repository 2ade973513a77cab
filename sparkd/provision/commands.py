"""Runs a program to its end and keeps its last lines, so that a failure can be explained.

The program never reads the terminal. A lock's descriptor can be handed to it: the lock then lasts
as long as the program, even when this process is killed and leaves it behind.
"""

from __future__ import annotations

import os
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

#: Enough of a package installer's output to hold its reason.
TAIL_LINES = 15
#: Seconds a program has to clean up after SIGTERM when its caller was interrupted.
PATIENCE = 5.0


class CommandFailedError(Exception):
    """A program ended with a status other than 0. `tail` has its last lines."""

    def __init__(self, argv: Sequence[str], status: int, tail: Sequence[str]):
        super().__init__(f"{Path(argv[0]).name} ended with status {status}")
        self.status = status
        self.tail = tuple(tail)


def run_command(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    hold: int | None = None,
    on_line: Callable[[str], None] = lambda line: None,
) -> tuple[str, ...]:
    """The program's last lines. Raises CommandFailedError, or OSError if it cannot be started."""
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    with subprocess.Popen(
        argv,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=() if hold is None else (hold,),
        text=True,
        errors="replace",
    ) as child:
        try:
            assert child.stdout is not None
            for line in child.stdout:
                tail.append(line.rstrip())
                on_line(tail[-1])
            status = child.wait()
        except BaseException:
            end(child)
            raise
    if status != 0:
        raise CommandFailedError(argv, status, tail)
    return tuple(tail)


def end(child: subprocess.Popen[str]) -> None:
    """SIGTERM, then SIGKILL; returns when it is gone."""
    child.terminate()
    try:
        child.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
