"""Sizes, durations and instants: their types, and how people write them. Pure."""

from __future__ import annotations

import re
from typing import NewType

Bytes = NewType("Bytes", int)
Seconds = NewType("Seconds", float)
#: A reading of one monotonic clock; only differences mean anything.
Instant = NewType("Instant", float)

KIB, MIB, GIB, TIB = 1024, 1024**2, 1024**3, 1024**4

_SIZES = {"B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": TIB}
_DURATIONS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_LARGEST = 1e15
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*")


def parse_size(text: str) -> Bytes:
    """`"24GiB"` -> bytes. Raises ValueError with what is wrong; sizes are binary, GB is refused."""
    number, unit = _split(text, "a size such as '24GiB'")
    if unit not in _SIZES:
        raise ValueError(f"unknown unit '{unit}' in '{text}'; use one of {', '.join(_SIZES)}")
    return Bytes(int(number * _SIZES[unit]))


def parse_duration(text: str) -> Seconds:
    """`"20min"` -> seconds. `"0"` needs no unit. Raises ValueError with what is wrong."""
    if text.strip() == "0":
        return Seconds(0.0)
    number, unit = _split(text, "a duration such as '20min'")
    if unit not in _DURATIONS:
        raise ValueError(f"unknown unit '{unit}' in '{text}'; use one of {', '.join(_DURATIONS)}")
    return Seconds(number * _DURATIONS[unit])


def format_size(size: int) -> str:
    """Bytes as people read them: `24GiB`, `1.5GiB`, `512MiB`; what `parse_size` accepts."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if abs(size) >= _SIZES[unit]:
            return f"{size / _SIZES[unit]:.4g}{unit}"
    return f"{size}B"


def format_duration(seconds: float) -> str:
    """Seconds as people read them: `20min`, `1.5s`, `250ms`; what `parse_duration` accepts."""
    for unit in ("d", "h", "min", "s"):
        if abs(seconds) >= _DURATIONS[unit]:
            return f"{seconds / _DURATIONS[unit]:.3g}{unit}"
    return f"{seconds * 1000:.3g}ms" if seconds else "0"


def _split(text: str, wanted: str) -> tuple[float, str]:
    found = _QUANTITY.fullmatch(text)
    if not found:
        raise ValueError(f"'{text}' is not {wanted}")
    number = float(found[1])
    if number > _LARGEST:
        raise ValueError(f"'{text.strip()[:20]}...' is too large")
    return number, found[2]
