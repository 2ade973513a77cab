"""The summary of what a machine could not run, in a pytest of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = "from tests.conftest import pytest_sessionfinish, pytest_terminal_summary\n"
TESTS = """
from tests.left_out import leave_out
import pytest

@pytest.mark.parametrize("n", range(2))
def test_gpu(n):
    leave_out("needs a GPU")

def test_fine():
    pass
"""


@pytest.mark.parametrize(("ci", "status"), [("", 0), ("true", 1)])
def test_what_is_left_out_is_listed_last_and_fails_ci(tmp_path: Path, ci: str, status: int):
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_some.py").write_text(TESTS)
    clone = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-ra", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "CI": ci, "PYTHONPATH": clone, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout
    *_, title, reason, totals = done.stdout.strip().splitlines()
    assert "LEFT OUT" in title
    assert ("a failure" in title) == bool(ci)
    assert reason == "2 × needs a GPU"
    assert "1 passed, 2 skipped" in totals
