"""Runtime recipes: TOML files that say how an installed vLLM is made. Reads them, builds nothing.

Every mistake of a recipe is reported at once. The lock file beside a recipe holds exact pins only:
what is installed is what the recipe's author tested, never what a resolver finds today.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from sparkd.core.catalogue import Device, RuntimeKind
from sparkd.core.quantities import Bytes, parse_size
from sparkd.errors import ConfigError, Problem

T = TypeVar("T")

PythonVersion = tuple[int, int]

_PYTHON_RANGE = re.compile(r">=\s*(\d+)\.(\d+)\s*,\s*<\s*(\d+)\.(\d+)")
#: `name==version`, with an environment marker or without. Source: PEP 508 (2015), PEP 440.
_PIN = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9.!+]+)(?P<marker>\s*;.+)?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """One package at one version. `marker` (`; platform_machine == ...`) may leave it out."""

    name: str
    version: str
    marker: str = ""

    def __str__(self) -> str:
        return f"{self.name}=={self.version}{self.marker}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """An index asked for some packages when pip's own configuration does not have them."""

    packages: frozenset[str]
    index: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataAlias:
    """A second name under which an installed distribution's metadata is found."""

    name: str
    distribution: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to build one runtime. `digest` changes when the recipe or its pins do."""

    name: str
    kind: RuntimeKind
    device: Device
    description: str
    python_from: PythonVersion
    python_below: PythonVersion
    command: tuple[str, ...]
    disk: Bytes
    pins: tuple[Pin, ...]
    fallbacks: tuple[Fallback, ...]
    aliases: tuple[MetadataAlias, ...]
    forbidden: frozenset[str]
    versions: Mapping[str, str]
    imports: tuple[str, ...]
    env: Mapping[str, str]
    source: Path
    digest: str

    def accepts(self, python: PythonVersion) -> bool:
        return self.python_from <= python < self.python_below

    @property
    def python_range(self) -> str:
        return f"{_dotted(self.python_from)} to {_dotted(_before(self.python_below))}"


def normal(name: str) -> str:
    """A distribution's name as indexes compare it. Source: PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_recipe(file: Path) -> Recipe:
    """Raises ConfigError with every problem of the recipe and of its lock file."""
    try:
        text = file.read_text("utf-8")
        raw = tomllib.loads(text)
    except OSError as error:
        reason = f"cannot read this recipe: {error.strerror}"
        raise ConfigError([Problem(where=str(file), message=reason)]) from None
    except ValueError as error:
        reason = f"cannot parse this recipe as TOML: {error}"
        raise ConfigError([Problem(where=str(file), message=reason)]) from None
    return _Reading(file, text, raw).recipe()


_ANY_PYTHON: tuple[PythonVersion, PythonVersion] = ((3, 0), (4, 0))
_NO_TEXTS: tuple[str, ...] = ()
_NO_FALLBACKS: tuple[Fallback, ...] = ()
_NO_ALIASES: tuple[MetadataAlias, ...] = ()
_NO_STRINGS: Mapping[str, str] = MappingProxyType({})


class _Reading:
    """One recipe being read; collects what is wrong with it."""

    def __init__(self, file: Path, text: str, raw: Mapping[str, object]):
        self._file = file
        self._text = text
        self._rest: dict[str, object] = dict(raw)
        self._problems: list[Problem] = []

    def recipe(self) -> Recipe:
        packages = _Table(self, "packages", self._rest.pop("packages", None))
        checks = _Table(self, "checks", self._rest.pop("checks", {}))
        forbidden = _Table(self, "forbidden", self._rest.pop("forbidden", {}))
        top = _Table(self, "", self._rest)
        since, below = top.value("python", _python_range, _ANY_PYTHON)
        lock, pins = self._lock(packages)
        recipe = Recipe(
            name=top.value("name", _text, ""),
            kind=top.value("kind", _kind, RuntimeKind.VENV),
            device=top.value("device", _device, Device.CPU),
            description=top.value("description", _text, "", required=False),
            python_from=since,
            python_below=below,
            command=top.value("command", _texts, _NO_TEXTS),
            disk=top.value("disk", _size, Bytes(0)),
            pins=pins,
            fallbacks=packages.value("fallback", _fallbacks, _NO_FALLBACKS, required=False),
            aliases=top.value("metadata_alias", _aliases, _NO_ALIASES, required=False),
            forbidden=frozenset(forbidden.value("packages", _names, _NO_TEXTS, required=False)),
            versions=checks.value("versions", _string_table, _NO_STRINGS, required=False),
            imports=checks.value("imports", _texts, _NO_TEXTS, required=False),
            env=top.value("env", _string_table, _NO_STRINGS, required=False),
            source=self._file,
            digest=hashlib.sha256((self._text + "\0" + lock).encode()).hexdigest(),
        )
        for table in (top, packages, checks, forbidden):
            table.refuse_the_rest()
        for pin in pins:
            if pin.name in recipe.forbidden:
                self.problem("forbidden.packages", f"'{pin.name}' is pinned and forbidden")
        if self._problems:
            raise ConfigError(self._problems)
        return recipe

    def problem(self, key: str, message: str, hint: str | None = None) -> None:
        where = f"{self._file}: {key}" if key else str(self._file)
        self._problems.append(Problem(where=where, message=message, hint=hint))

    def _lock(self, packages: _Table) -> tuple[str, tuple[Pin, ...]]:
        name = packages.value("requirements", _text, "")
        if not name:
            return "", ()
        file = self._file.parent / name
        try:
            text = file.read_text("utf-8")
        except OSError as error:
            self.problem("packages.requirements", f"cannot read {file}: {error.strerror}")
            return "", ()
        lines = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1))
        wanted = [(number, line) for number, line in lines if line and not line.startswith("#")]
        pins = [pin for number, line in wanted if (pin := self._pin(file, number, line))]
        return text, tuple(pins)

    def _pin(self, file: Path, number: int, line: str) -> Pin | None:
        found = _PIN.fullmatch(line)
        if found is None:
            where = f"{file}: line {number}"
            message = f"'{line}' is not an exact pin"
            hint = "such as torch==2.13.0+cpu"
            self._problems.append(Problem(where=where, message=message, hint=hint))
            return None
        return Pin(
            name=normal(found["name"]), version=found["version"], marker=found["marker"] or ""
        )


class _NotOfItsKindError(ValueError):
    """A value of the recipe has the wrong type or shape."""


class _Table:
    """One table of the recipe; keys that nothing asked for are mistakes."""

    def __init__(self, reading: _Reading, path: str, raw: object):
        self._reading = reading
        self._path = path
        self._rest: dict[str, object] = {}
        if isinstance(raw, dict):
            self._rest = raw
        else:
            reading.problem(path, "missing" if raw is None else "must be a table")

    def value(
        self, key: str, parse: Callable[[object], T], default: T, *, required: bool = True
    ) -> T:
        if key not in self._rest:
            if required:
                self._reading.problem(self._key(key), "missing")
            return default
        try:
            return parse(self._rest.pop(key))
        except ValueError as error:
            self._reading.problem(self._key(key), str(error))
            return default

    def refuse_the_rest(self) -> None:
        for key in self._rest:
            self._reading.problem(self._key(key), "unknown key")

    def _key(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key


def _text(raw: object) -> str:
    if not isinstance(raw, str) or not raw:
        raise _NotOfItsKindError("must be a string that is not empty")
    return raw


def _texts(raw: object) -> tuple[str, ...]:
    if not isinstance(raw, list) or not raw:
        raise _NotOfItsKindError("must be a list of strings that is not empty")
    return tuple(_text(item) for item in raw)


def _names(raw: object) -> tuple[str, ...]:
    return tuple(normal(name) for name in _texts(raw))


def _kind(raw: object) -> RuntimeKind:
    return RuntimeKind(_text(raw))


def _device(raw: object) -> Device:
    return Device(_text(raw))


def _size(raw: object) -> Bytes:
    return parse_size(_text(raw))


def _string_table(raw: object) -> Mapping[str, str]:
    if not isinstance(raw, dict):
        raise _NotOfItsKindError("must be a table of strings")
    return {key: _text(value) for key, value in raw.items()}


def _python_range(raw: object) -> tuple[PythonVersion, PythonVersion]:
    found = _PYTHON_RANGE.fullmatch(_text(raw))
    if found is None:
        raise _NotOfItsKindError("must be a range such as '>=3.11,<3.14'")
    since, below = (int(found[1]), int(found[2])), (int(found[3]), int(found[4]))
    if since >= below:
        raise _NotOfItsKindError("is an empty range")
    return since, below


def _fallbacks(raw: object) -> tuple[Fallback, ...]:
    if not isinstance(raw, list):
        raise _NotOfItsKindError("must be an array of tables")
    return tuple(_fallback(item) for item in raw)


def _fallback(raw: object) -> Fallback:
    if not isinstance(raw, dict) or raw.keys() != {"packages", "index"}:
        raise _NotOfItsKindError("must have 'packages' and 'index', and nothing else")
    return Fallback(packages=frozenset(_names(raw["packages"])), index=_text(raw["index"]))


def _aliases(raw: object) -> tuple[MetadataAlias, ...]:
    if not isinstance(raw, dict):
        raise _NotOfItsKindError("must be a table of tables")
    return tuple(_alias(name, value) for name, value in raw.items())


def _alias(name: str, raw: object) -> MetadataAlias:
    if not isinstance(raw, dict) or raw.keys() != {"distribution", "version"}:
        raise _NotOfItsKindError(
            f"'{name}' must have 'distribution' and 'version', and nothing else"
        )
    return MetadataAlias(
        name=name, distribution=_text(raw["distribution"]), version=_text(raw["version"])
    )


def _dotted(version: PythonVersion) -> str:
    return ".".join(map(str, version))


def _before(version: PythonVersion) -> PythonVersion:
    return version[0], version[1] - 1
