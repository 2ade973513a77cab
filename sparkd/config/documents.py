"""TOML files as trees that remember where every value was written, and how they are merged.

Knows nothing about which keys exist. Values are still raw here; `sparkd.config.reader` types them.
"""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sparkd.config.problems import Findings, Place, Weight


@dataclass(frozen=True, slots=True)
class Value:
    """A value that is not a table, as TOML gave it."""

    raw: object
    place: Place


@dataclass(slots=True)
class Table:
    """A table and what it holds, in the order of the file."""

    place: Place
    children: dict[str, Table | Value] = field(default_factory=dict)

    def find(self, path: tuple[str, ...]) -> Table | Value | None:
        """What is written at `path`; None where nothing is, or a value lies on the way."""
        node: Table | Value | None = self
        for key in path:
            if not isinstance(node, Table):
                return None
            node = node.children.get(key)
        return node

    def plain(self) -> dict[str, object]:
        return {
            key: node.plain() if isinstance(node, Table) else node.raw
            for key, node in self.children.items()
        }

    def merge(self, other: Table) -> None:
        """`other` on top: tables merge, everything else replaces."""
        for key, theirs in other.children.items():
            ours = self.children.get(key)
            if isinstance(ours, Table) and isinstance(theirs, Table):
                ours.merge(theirs)
            else:
                self.children[key] = theirs


def read_document(file: Path, findings: Findings, weight: Weight = Weight.ERROR) -> Table | None:
    """The file's tree, or None after the reason was added to `findings`."""
    findings.reading(file)
    text = _read_text(file, findings, weight)
    if text is None:
        return None
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        message = f"cannot parse this as TOML: {error}"
        findings.add(Place(file), message, _syntax_hint(text, error), weight)
        return None
    return _table(raw, Place(file), "", itertools.count())


def _read_text(file: Path, findings: Findings, weight: Weight) -> str | None:
    try:
        if not file.is_file():  # a FIFO would block for ever, a directory cannot be read
            message, hint = _not_a_file(file)
            findings.add(Place(file), message, hint, weight)
            return None
        # utf-8-sig: some editors start a file with a byte order mark, which tomllib refuses.
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = f"byte {error.start} is {error.object[error.start]:#04x}"
        message, hint = f"cannot decode this as UTF-8: {at}", "save the file as UTF-8"
    except OSError as error:
        message = f"cannot read this file: {error.strerror or error}"
        hint = "the user that runs sparkd must be able to read it"
    findings.add(Place(file), message, hint, weight)
    return None


def _not_a_file(file: Path) -> tuple[str, str]:
    if file.is_symlink() and not file.exists():
        return "cannot read this file: it links to nothing", "mend the link, or remove it"
    if not file.exists():
        return "cannot read this file: it does not exist", "is the path right?"
    return "cannot read this file: it is not a regular file", "put a TOML file in its place"


def _table(raw: Mapping[str, object], place: Place, prefix: str, order: Iterator[int]) -> Table:
    table = Table(place)
    for key, value in raw.items():
        path = f"{prefix}{key}"
        here = Place(place.file, path, next(order))
        if isinstance(value, dict):
            table.children[key] = _table(value, here, f"{path}.", order)
        else:
            table.children[key] = Value(value, here)
    return table


_QUANTITY_WITHOUT_QUOTES = re.compile(r"=\s*[0-9.]+\s*[A-Za-z]+\s*(#.*)?$")
_WORD_WITHOUT_QUOTES = re.compile(r"=\s*[A-Za-z~/.]")


def _syntax_hint(text: str, error: Exception) -> str | None:
    """The line the parser stopped at, with the cure where the mistake is a usual one."""
    found = re.search(r"at line (\d+)", str(error))
    lines = text.splitlines()
    number = int(found[1]) if found else 0
    if not 0 < number <= len(lines):
        return "is a quote or a bracket left open?"
    line = lines[number - 1].strip()
    if _QUANTITY_WITHOUT_QUOTES.search(line):
        return f"sizes and durations are written in quotes; line {number} is: {line}"
    if _WORD_WITHOUT_QUOTES.search(line):
        return f"text is written in quotes; line {number} is: {line}"
    return f"line {number} is: {line}"
