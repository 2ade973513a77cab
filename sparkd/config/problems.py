"""Collects every mistake of the operator's files, so that all are reported at once, in file order.

Decides nothing about what a mistake is. A finding that only keeps one model from being served
(missing weights, missing runtime) is told apart: it must not stop the daemon.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from sparkd.errors import Problem


class Weight(IntEnum):
    """What a finding leads to."""

    WARNING = 0  # told, never refused
    UNAVAILABLE = 1  # one model cannot be served: an error of `sparkd check`, a warning otherwise
    ERROR = 2  # the configuration is refused


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was written, or should have been. `order` is its rank inside the file."""

    file: Path
    key: str = ""
    order: int = -1

    def __str__(self) -> str:
        return f"{self.file}: {self.key}" if self.key else str(self.file)

    def at(self, suffix: str) -> Place:
        """The same place, one step further in: an item of a list, a key of a table."""
        return Place(self.file, f"{self.key}{suffix}", self.order)


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem with its rank among the others."""

    weight: Weight
    file_rank: int
    order: int
    problem: Problem


class Findings:
    """The problems found so far. Files rank in the order in which they were first read."""

    def __init__(self) -> None:
        self._found: list[Finding] = []
        self._ranks: dict[Path, int] = {}
        self._read: list[Path] = []

    def add(
        self, place: Place, message: str, hint: str | None, weight: Weight = Weight.ERROR
    ) -> None:
        problem = Problem(where=str(place), message=message, hint=hint)
        self._found.append(Finding(weight, self._rank(place.file), place.order, problem))

    def reading(self, file: Path) -> None:
        """Files are told in the order in which they were read, also when they had no problem."""
        self._rank(file)
        self._read.append(file)

    def errors(self, *, strict: bool) -> tuple[Problem, ...]:
        return self._sorted(lambda weight: weight >= _refused(strict=strict))

    def warnings(self, *, strict: bool) -> tuple[Problem, ...]:
        return self._sorted(lambda weight: weight < _refused(strict=strict))

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(self._read)

    def _rank(self, file: Path) -> int:
        return self._ranks.setdefault(file, len(self._ranks))

    def _sorted(self, wanted: Callable[[Weight], bool]) -> tuple[Problem, ...]:
        chosen = [found for found in self._found if wanted(found.weight)]
        chosen.sort(key=lambda found: (found.file_rank, found.order))
        return tuple(found.problem for found in chosen)


def _refused(*, strict: bool) -> Weight:
    return Weight.UNAVAILABLE if strict else Weight.ERROR
