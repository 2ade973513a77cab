"""Tells a person what is being done and how long it takes: a spinner on a terminal, else lines.

Everything `sparkd.provision` prints goes through here. Decides nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress as Spinner
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn


class Step:
    """One thing being done."""

    def __init__(self, console: Console, spinner: Spinner | None, what: str):
        self._console = console
        self._spinner = spinner
        self._phase = ""
        self._task = spinner.add_task(what, detail="") if spinner else None
        self.outcome = ""

    def phase(self, text: str) -> None:
        """The step has come this far; repeating it says nothing new."""
        if text != self._phase and self._spinner is None:
            self._console.print(f"    {text}", markup=False, soft_wrap=True)
        self._phase = text
        self.detail(text)

    def detail(self, text: str) -> None:
        """What it is at just now, on a terminal only."""
        if self._spinner and self._task is not None:
            self._spinner.update(self._task, detail=text[:60])


class Progress:
    """Where steps are shown. Safe to use from threads: rich locks its console."""

    def __init__(self, console: Console | None = None):
        self._console = console or Console(highlight=False)

    @property
    def interactive(self) -> bool:
        return self._console.is_terminal

    def line(self, text: str = "", *, style: str | None = None) -> None:
        self._console.print(text, style=style, markup=False, soft_wrap=True)

    def write(self, text: str) -> None:
        """Text without a newline: an answer as it arrives."""
        self._console.print(text, end="", markup=False, soft_wrap=True)

    @contextmanager
    def step(self, what: str) -> Iterator[Step]:
        """Shows `what` with the seconds that pass; afterwards one line with how long it took."""
        began = time.monotonic()
        if self.interactive:
            with self._spinner() as spinner:
                step = Step(self._console, spinner, what)
                yield step
        else:
            self.line(f"... {what}")
            step = Step(self._console, None, what)
            yield step
        outcome = f": {step.outcome}" if step.outcome else ""
        self.line(f"  ✓ {what}{outcome} ({time.monotonic() - began:.1f} s)")

    def _spinner(self) -> Spinner:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.fields[detail]}", style="dim", markup=False),
        )
        return Spinner(*columns, console=self._console, transient=True)
