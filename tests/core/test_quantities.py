"""Sizes and durations as people write them."""

from __future__ import annotations

import pytest

from sparkd.core.quantities import (
    GIB,
    KIB,
    MIB,
    TIB,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0B", 0), ("17B", 17), ("1KiB", KIB), ("512MiB", 512 * MIB), ("24GiB", 24 * GIB),
        ("1.5GiB", 3 * GIB // 2), ("2TiB", 2 * TIB), (" 24 GiB ", 24 * GIB),
    ],
)  # fmt: skip
def test_sizes_are_read(text: str, size: int):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0), ("0s", 0), ("250ms", 0.25), ("1.5s", 1.5), ("20min", 1200), ("2h", 7200),
        ("1d", 86400), (" 5 s ", 5),
    ],
)  # fmt: skip
def test_durations_are_read(text: str, seconds: float):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("24GB", "unknown unit 'GB'"), ("24", "is not a size"), ("", "is not a size"),
        ("-1GiB", "is not a size"), ("GiB", "is not a size"), ("1e3B", "unknown unit"),
        ("24gib", "unknown unit 'gib'"), ("1 GiB 2", "is not a size"),
    ],
)  # fmt: skip
def test_a_size_that_cannot_be_read_is_named_with_what_is_wrong(text: str, said: str):
    with pytest.raises(ValueError) as caught:
        parse_size(text)
    assert said in str(caught.value) or "is not a size" in str(caught.value)
    assert text in str(caught.value)


@pytest.mark.parametrize("text", ["20", "20m", "20 minutes", "-5s", "", "s", "1,5s", "inf"])
def test_a_duration_that_cannot_be_read_is_named(text: str):
    with pytest.raises(ValueError) as caught:
        parse_duration(text)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"), (1023, "1023B"), (1024, "1KiB"), (512 * MIB, "512MiB"), (24 * GIB, "24GiB"),
        (3 * GIB // 2, "1.5GiB"), (TIB, "1TiB"),
    ],
)  # fmt: skip
def test_sizes_are_written_as_they_are_read(size: int, text: str):
    assert format_size(size) == text
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0"), (0.25, "250ms"), (1, "1s"), (90, "1.5min"), (1200, "20min"), (86400, "1d")],
)
def test_durations_are_written_as_they_are_read(seconds: float, text: str):
    assert format_duration(seconds) == text
    assert parse_duration(text) == seconds
