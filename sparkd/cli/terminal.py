"""How things look on a terminal and in a pipe: tables, one moving line, sizes and ages.

A pipe gets the same words without colour, without folding and without control characters.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from typing import TextIO

Row = Sequence[str]

_STYLES = {
    "ready": "green",
    "starting": "yellow",
    "queued": "yellow",
    "draining": "yellow",
    "stopping": "yellow",
    "failed": "bold red",
    "cold": "dim",
}
#: Engines print what clients sent them: an escape sequence must not reach the operator's terminal.
_CONTROLS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_AGES = (("d", 86400), ("h", 3600), ("min", 60))


def harmless(text: str) -> str:
    """The text without control characters; newlines and tabs stay."""
    return _CONTROLS.sub("", text)


def age(seconds: float | None) -> str:
    """Whole numbers of one unit, as a person says it: `45s`, `12min`, `3h`."""
    if seconds is None:
        return "–"
    for unit, size in _AGES:
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


def has_colours(stream: TextIO) -> bool:
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def print_table(header: Row, rows: Sequence[Row]) -> None:
    """The column STATE is coloured; a terminal that is too narrow folds, a pipe never does."""
    clean = [[harmless(cell) for cell in row] for row in rows]
    if has_colours(sys.stdout):
        _print_rich(header, clean)
    else:
        _print_plain(header, clean)


def _print_plain(header: Row, rows: Sequence[Row]) -> None:
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())


def _print_rich(header: Row, rows: Sequence[Row]) -> None:
    # Imported here: a pipe, a script and the completion do not need its 80 ms.
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(*header, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        styled = zip(header, row, strict=True)
        table.add_row(
            *(Text(cell, _STYLES.get(cell, "") if name == "STATE" else "") for name, cell in styled)
        )
    Console(highlight=False).print(table)


class MovingLine:
    """One line on stderr that is written over; nothing at all when stderr is no terminal."""

    def __init__(self, *, enabled: bool = True):
        self.is_shown = enabled and is_terminal(sys.stderr)

    def show(self, text: str) -> None:
        if self.is_shown:
            room = shutil.get_terminal_size().columns - 1
            self._write(harmless(text)[:room])

    def clear(self) -> None:
        if self.is_shown:
            self._write("")

    def _write(self, text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
