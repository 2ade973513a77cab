"""docs/parity.md names a test for every row; each of them must be there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROWS = re.findall(
    r"^\| ([WPB]-\w+) \|.*`(tests/[\w/]+\.py)::(\w+)` \|$",
    (ROOT / "docs/parity.md").read_text(encoding="utf-8"),
    re.MULTILINE,
)


@pytest.mark.parametrize(("row", "file", "test"), ROWS)
def test_the_row_is_shown_by_a_test_that_is_there(row: str, file: str, test: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    assert re.search(rf"def {test}\b", text), f"{row}: no {test} in {file}"


def test_every_row_names_a_test() -> None:
    lines = (ROOT / "docs/parity.md").read_text(encoding="utf-8").splitlines()
    assert len(ROWS) == sum(bool(re.match(r"\| [WPB]-", line)) for line in lines)
