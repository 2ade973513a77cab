"""What a setting's value may be: one `Kind` per sort of value, from raw TOML to a typed value.

A kind says what is wrong with a value and what to write instead; it does not know which setting it
belongs to, and touches no file.
"""

from __future__ import annotations

import difflib
import math
import os.path
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Generic, TypeVar

from sparkd.core.quantities import (
    Bytes,
    Seconds,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
E = TypeVar("E", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing wrong with a value. `suffix` says where inside it: `[1]`, `.NAME`."""

    message: str
    hint: str | None = None
    suffix: str = ""


class InvalidValueError(ValueError):
    """A value is not of its kind; `mistakes` has everything wrong with it."""

    def __init__(self, *mistakes: Mistake):
        super().__init__("; ".join(mistake.message for mistake in mistakes))
        self.mistakes = mistakes


@dataclass(frozen=True, slots=True)
class Kind(Generic[T_co]):
    """A sort of value. `parse` gets the raw value and the directory that relative paths start at.

    `show` writes a value as TOML, for the documentation; it must give back what `parse` accepts.
    """

    name: str
    parse: Callable[[object, Path], T_co]
    show: Callable[[object], str]


def refuse(message: str, hint: str | None = None) -> InvalidValueError:
    return InvalidValueError(Mistake(message, hint))


def toml_type(raw: object) -> str:
    """The value's type in an operator's words."""
    match raw:
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a float"
        case str():
            return "a string"
        case list():
            return "a list"
        case dict():
            return "a table"
        case _:
            return "a date or time"


def wanted(what: str, raw: object, hint: str) -> InvalidValueError:
    return refuse(f"must be {what}, not {toml_type(raw)}", hint)


def text_of(raw: object) -> str:
    """The value as text without control characters."""
    if not isinstance(raw, str):
        raise wanted("a string", raw, f'write it in quotes: "{_as_written(raw)}"')
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in raw):
        raise refuse("contains a control character", "write it on one line, without escapes")
    return raw


def _as_written(raw: object) -> str:
    return str(raw).lower() if isinstance(raw, bool) else str(raw)


def _quantity(raw: object, parse: Callable[[str], float], example: str, what: str) -> float:
    if not isinstance(raw, str):
        given = isinstance(raw, int | float) and not isinstance(raw, bool)
        hint = (
            f'write the unit, in quotes, such as "{example}"' if given else f'such as "{example}"'
        )
        raise wanted(f"a {what} in quotes", raw, hint)
    if raw.strip().startswith("-"):
        raise refuse(f"must not be negative: '{raw}'", f'such as "{example}"')
    try:
        value = parse(raw)
    except OverflowError:
        value = math.inf
    except ValueError as error:
        raise refuse(str(error), _unit_hint(raw, example)) from None
    if not math.isfinite(value) or value > 2**62:
        raise refuse(f"is too large: '{raw}'", f'such as "{example}"')
    return value


#: What people write out of habit, and the unit that sparkd has for it.
_HABITS = {
    "kb": "KiB", "mb": "MiB", "gb": "GiB", "tb": "TiB",
    "k": "KiB", "m": "MiB", "g": "GiB", "t": "TiB",
    "ki": "KiB", "mi": "MiB", "gi": "GiB", "ti": "TiB",
    "kib": "KiB", "mib": "MiB", "gib": "GiB", "tib": "TiB", "bytes": "B",
}  # fmt: skip
_DURATION_HABITS = {
    "sec": "s", "secs": "s", "second": "s", "seconds": "s",
    "m": "min", "mins": "min", "minute": "min", "minutes": "min",
    "hr": "h", "hrs": "h", "hour": "h", "hours": "h", "day": "d", "days": "d",
}  # fmt: skip


def _unit_hint(raw: str, example: str) -> str:
    number = raw.strip().rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    unit = raw.strip()[len(number) :].strip().lower()
    habits = _HABITS if example.endswith("B") else _DURATION_HABITS
    if number.replace(".", "", 1).isdigit() and unit in habits:
        return f'did you mean "{number}{habits[unit]}"?'
    return f'such as "{example}"'


def size(*, positive: bool = True) -> Kind[Bytes]:
    def parse(raw: object, _base: Path) -> Bytes:
        value = Bytes(int(_quantity(raw, parse_size, "24GiB", "size")))
        if positive and value <= 0:
            raise refuse("must be more than 0", 'such as "24GiB"')
        return value

    return Kind("size", parse, lambda value: quoted(format_size(_number(value))))


def duration(*, positive: bool = False, zero: str = "") -> Kind[Seconds]:
    """`zero`: what 0 would mean and why it is refused; only read when `positive`."""

    def parse(raw: object, _base: Path) -> Seconds:
        value = Seconds(_quantity(raw, parse_duration, "20min", "duration"))
        if positive and value <= 0:
            raise refuse(f"must be more than 0{zero and ': ' + zero}", 'such as "20min"')
        return value

    def show(value: object) -> str:
        assert isinstance(value, int | float)
        return quoted(format_duration(value))

    return Kind("duration", parse, show)


def integer(*, least: int, hint: str) -> Kind[int]:
    def parse(raw: object, _base: Path) -> int:
        if isinstance(raw, bool) or not isinstance(raw, int):
            raise wanted("an integer", raw, hint)
        if raw < least:
            raise refuse(f"must be {least} or more, not {raw}", hint)
        return raw

    return Kind("integer", parse, str)


def boolean() -> Kind[bool]:
    def parse(raw: object, _base: Path) -> bool:
        if not isinstance(raw, bool):
            raise wanted("true or false", raw, "write true or false, without quotes")
        return raw

    return Kind("boolean", parse, lambda value: str(value).lower())


def text() -> Kind[str]:
    return Kind("string", lambda raw, _base: text_of(raw), quoted)


def choice(of: type[E]) -> Kind[E]:
    def parse(raw: object, _base: Path) -> E:
        word = text_of(raw)
        try:
            return of(word)
        except ValueError:
            near = difflib.get_close_matches(word, list(of), n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"one of {', '.join(of)}"
            raise refuse(f"unknown word '{word}'; use one of {', '.join(of)}", hint) from None

    return Kind(", ".join(f'"{word}"' for word in of), parse, quoted)


def path(*, longest: int | None = None, why: str = "") -> Kind[Path]:
    """An absolute path. `longest`: how many bytes it may have then; `why`: for what reason."""

    def parse(raw: object, base: Path) -> Path:
        found = resolve_path(text_of(raw), base)
        length = len(os.fsencode(found))
        if longest is not None and length > longest:
            raise refuse(
                f"is too long: {length} bytes, at most {longest} fit: {why}", "use a shorter path"
            )
        return found

    return Kind("path", parse, quoted)


def resolve_path(written: str, base: Path) -> Path:
    """Absolute, `~` expanded, without `..`; symbolic links stay as the operator made them."""
    if not written.strip():
        raise refuse("must not be empty", "write a path")
    try:
        expanded = Path(written).expanduser()
    except RuntimeError:
        raise refuse(f"cannot expand '{written}': no such user", "write the whole path") from None
    return Path(os.path.normpath(base / expanded))


def list_of(item: Kind[T], *, least: int = 0, why: str = "") -> Kind[tuple[T, ...]]:
    """A list; all wrong items are told at once. Doubles are refused."""

    def parse(raw: object, base: Path) -> tuple[T, ...]:
        if not isinstance(raw, list):
            raise wanted("a list", raw, f"write it in brackets: [{_toml(raw)}]")
        if len(raw) < least:
            raise refuse(f"must have at least {least} item", why)
        found = _items(raw, item, base)
        for index, value in enumerate(found):
            if value in found[:index]:
                raise InvalidValueError(
                    Mistake(f"is there twice: {_toml(raw[index])}", "remove one", f"[{index}]")
                )
        return found

    return Kind(f"list of {item.name}s", parse, _show_list(item))


def words() -> Kind[tuple[str, ...]]:
    """A list of strings in which the same may stand twice, as on a command line."""
    item = text()

    def parse(raw: object, base: Path) -> tuple[str, ...]:
        if not isinstance(raw, list):
            raise wanted("a list of strings", raw, f"write each word apart: [{_toml(raw)}]")
        return _items(raw, item, base)

    return Kind("list of strings", parse, _show_list(item))


def _show_list(item: Kind[object]) -> Callable[[object], str]:
    def show(value: object) -> str:
        assert isinstance(value, tuple)
        return f"[{', '.join(item.show(one) for one in value)}]"

    return show


def _items(raw: Sequence[object], item: Kind[T], base: Path) -> tuple[T, ...]:
    found: list[T] = []
    mistakes: list[Mistake] = []
    for index, one in enumerate(raw):
        try:
            found.append(item.parse(one, base))
        except InvalidValueError as error:
            mistakes += [Mistake(m.message, m.hint, f"[{index}]{m.suffix}") for m in error.mistakes]
    if mistakes:
        raise InvalidValueError(*mistakes)
    return tuple(found)


def quoted(value: object) -> str:
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _toml(raw: object) -> str:
    if isinstance(raw, str):
        return quoted(raw)
    return _as_written(raw) if isinstance(raw, bool | int | float) else "..."


def _number(value: object) -> int:
    assert isinstance(value, int)
    return value
