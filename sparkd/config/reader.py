"""From a file's tree to typed values: one setting at a time, every mistake kept.

Also says which keys should not be there, and what the operator may have meant.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import TypeVar

from sparkd.config.documents import Table, Value
from sparkd.config.kinds import InvalidValueError, Mistake, toml_type
from sparkd.config.problems import Findings, Place, Weight
from sparkd.config.rows import Setting

T = TypeVar("T")


class Reader:
    """Reads one tree. A mistake is added to `findings`; the setting's default stands in for it."""

    def __init__(self, root: Table, findings: Findings, weight: Weight = Weight.ERROR):
        self._root = root
        self._findings = findings
        self._weight = weight
        self.failed = False

    def get(self, setting: Setting[T], default: T | None = None) -> T:
        """The value as written, or `default` where given, or the setting's own."""
        fallback = setting.default if default is None else default
        node = self._root.find(setting.path)
        if node is None:
            if setting.required and not self._blocked(setting):
                self._missing(setting)
            return fallback
        try:
            # A relative path starts at the file that holds it, which may be a drop-in.
            base = node.place.file.parent
            return setting.kind.parse(node.plain() if isinstance(node, Table) else node.raw, base)
        except InvalidValueError as error:
            for mistake in error.mistakes:
                self.problem(_inside(node, mistake), mistake.message, mistake.hint)
            return fallback

    def place(self, setting: Setting[object]) -> Place:
        """Where the setting is written; where it is not, the file with the key it would have."""
        node = self._root.find(setting.path)
        if node is not None:
            return node.place
        parent = self._root.find(setting.path[:-1])
        file = self._root.place.file
        return Place(file, setting.key, parent.place.order if parent is not None else -1)

    def written(self, setting: Setting[object]) -> bool:
        return self._root.find(setting.path) is not None

    def problem(self, place: Place, message: str, hint: str | None) -> None:
        self.failed = True
        self._findings.add(place, message, hint, self._weight)

    def report_unknown_keys(self, known: Known, weight: Weight = Weight.ERROR) -> None:
        for key, node in self._root.children.items():
            for place, message, hint in _unknown((key,), node, known):
                self._findings.add(place, message, hint, weight)

    def _missing(self, setting: Setting[object]) -> None:
        table = ".".join(setting.path[:-1])
        where = f"in [{table}]" if table else "at the top of the file"
        hint = f"{where}: {setting.path[-1]} = ...  {setting.doc}"
        self.problem(self.place(setting), "is missing, and has no default", hint)

    def _blocked(self, setting: Setting[object]) -> bool:
        """Whether something that is not a table lies where the setting's table should be."""
        return any(
            isinstance(self._root.find(setting.path[:end]), Value)
            for end in range(1, len(setting.path))
        )


def _inside(node: Table | Value, mistake: Mistake) -> Place:
    """A key of a table may come from a drop-in: then the drop-in is the file to name."""
    if isinstance(node, Table) and (child := node.children.get(mistake.suffix[1:])):
        return child.place
    return node.place.at(mistake.suffix)


def _unknown(
    path: tuple[str, ...], node: Table | Value, known: Known
) -> Iterator[tuple[Place, str, str]]:
    if path in known.settings or path in known.ignored:
        return
    if path not in known.tables:
        yield node.place, f"unknown {_what(node)} '{path[-1]}'", known.hint(path, node)
    elif isinstance(node, Value):
        inside = ", ".join(known.keys_of(path))
        hint = f"write [{'.'.join(path)}] on a line, and below it {inside}"
        yield node.place, f"must be a table, not {toml_type(node.raw)}", hint
    else:
        for key, child in node.children.items():
            yield from _unknown((*path, key), child, known)


def _what(node: Table | Value) -> str:
    return "table" if isinstance(node, Table) else "key"


class Known:
    """The keys of one kind of file, for looking up and for guessing.

    `elsewhere` has the settings of `other_file`, to recognise a key in the wrong file.
    """

    def __init__(
        self,
        rows: Sequence[Setting[object]],
        *,
        elsewhere: Sequence[Setting[object]] = (),
        other_file: str = "",
        ignored: tuple[str, ...] = (),
    ):
        self.ignored = {(table,) for table in ignored}
        self.settings = {row.path for row in rows}
        self.tables = {path[:end] for path in self.settings for end in range(1, len(path))}
        self._elsewhere = {row.path for row in elsewhere}
        self._other_file = other_file
        self._order = [row.path for row in rows]

    def keys_of(self, table: tuple[str, ...]) -> list[str]:
        """What may stand directly in a table, in the order of the rows."""
        inside = [p[len(table)] for p in self._order if p[: len(table)] == table != p]
        return list(dict.fromkeys(inside))

    def hint(self, path: tuple[str, ...], node: Table | Value) -> str:
        parent, key = path[:-1], path[-1]
        if near := difflib.get_close_matches(key, self.keys_of(parent), n=1, cutoff=0.7):
            return f"did you mean '{near[0]}'?"
        if isinstance(node, Value) and (other := _by_last_word(key, self._order)):
            return f"did you mean {_spoken(other)}?"
        if path in self._elsewhere or any(p[: len(path)] == path for p in self._elsewhere):
            return f"that is a setting of {self._other_file}"
        return f"known here: {', '.join(self.keys_of(parent))}"


def _by_last_word(key: str, settings: Sequence[tuple[str, ...]]) -> tuple[str, ...] | None:
    """The setting that has this name, or nearly, in another table."""
    by_word = {path[-1]: path for path in reversed(settings)}
    near = difflib.get_close_matches(key, by_word, n=1, cutoff=0.8)
    return by_word[near[0]] if near else None


def _spoken(path: tuple[str, ...]) -> str:
    table = ".".join(path[:-1])
    return f"[{table}] {path[-1]}" if table else f"'{path[-1]}' at the top of the file"
