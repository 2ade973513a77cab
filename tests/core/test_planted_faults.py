"""Mistakes planted in the core, one at a time: the tests of the core have to catch each of them.

`faults/*.patch` are unified diffs whose first line says what is wrong. When the core changes and
one no longer applies, plant the same mistake in the new code: a fault is dropped only together
with the policy that it breaks.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
FAULTS = sorted((HERE / "faults").glob("*.patch"))
#: The tests that have to catch the faults, quick ones first; the others say nothing about policy.
TESTS = ("test_scenarios_*.py", "test_status_estimates.py", "test_histories.py")
HELPERS = (
    "__init__.py", "world.py", "truth.py", "account.py", "invariants.py", "at_rest.py",
    "history.py",
)  # fmt: skip

pytestmark = pytest.mark.skipif(
    shutil.which("git") is None, reason="git is not installed: the planted faults cannot be applied"
)


def _copy_core(to: Path) -> None:
    """The core and its tests alone, where no other package of the tree can be found."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "sparkd" / "core", to / "sparkd" / "core", ignore=ignored)
    for name in ("__init__.py", "errors.py"):
        shutil.copy(ROOT / "sparkd" / name, to / "sparkd" / name)
    (to / "tests" / "core").mkdir(parents=True)
    (to / "tests" / "__init__.py").touch()
    for pattern in (*HELPERS, *TESTS):
        for file in HERE.glob(pattern):
            shutil.copy(file, to / "tests" / "core" / file.name)


def _apply(patch: Path, to: Path) -> subprocess.CompletedProcess[str]:
    # Without the ceiling git would look for a repository around `to` and skip what lies outside.
    env = os.environ | {"GIT_CEILING_DIRECTORIES": str(to.parent)}
    argv = ["git", "apply", "-C1", str(patch)]
    return subprocess.run(argv, cwd=to, env=env, capture_output=True, text=True, check=False)


def _run_tests(at: Path) -> subprocess.CompletedProcess[str]:
    env = os.environ | {
        "SPARKD_HISTORIES": "100",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(at),
    }
    argv = [
        sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "--tb=line", "--assert=plain",
        "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(at),
        *(str(file) for pattern in TESTS for file in sorted((at / "tests/core").glob(pattern))),
    ]  # fmt: skip
    return subprocess.run(
        argv, cwd=at, env=env, capture_output=True, text=True, check=False, timeout=50
    )


def _try_fault(patch: Path, at: Path) -> tuple[int, str]:
    """The exit status of the tests with the fault in place, and what they said."""
    _copy_core(at)
    applied = _apply(patch, at)
    if applied.returncode:
        return -1, applied.stderr
    result = _run_tests(at)
    return result.returncode, result.stdout + result.stderr


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Future[tuple[int, str]]]:
    with ThreadPoolExecutor(max_workers=2) as pool:
        return {
            patch.stem: pool.submit(_try_fault, patch, tmp_path_factory.mktemp(patch.stem) / "tree")
            for patch in FAULTS
        }


def test_there_are_enough_planted_faults():
    assert len(FAULTS) >= 16


def test_the_core_without_a_fault_passes_its_own_tests(tmp_path: Path):
    _copy_core(tmp_path / "tree")
    result = _run_tests(tmp_path / "tree")
    assert result.returncode == 0, result.stdout + result.stderr
    assert " passed" in result.stdout


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", [patch.stem for patch in FAULTS])
def test_a_planted_fault_is_caught(verdicts: dict[str, Future[tuple[int, str]]], name: str):
    status, said = verdicts[name].result()
    assert status != -1, f"the patch no longer applies to the core: {said}"
    assert status == pytest.ExitCode.TESTS_FAILED, f"not caught: {said}"
