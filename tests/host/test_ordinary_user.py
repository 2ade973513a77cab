"""The launcher's contract as a user without any privilege; as such a user it simply runs again."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.host.kit import short_directory

_NOBODY = 65534
_ROOT = Path(__file__).parent.parent.parent
_SUITE = tuple(
    f"tests/host/test_{name}.py"
    for name in ("launchers", "daemon_death", "survivors", "run_directory")
)


def as_nobody(home: Path, *command: str) -> subprocess.CompletedProcess[str]:
    env = {
        "PATH": os.defpath,
        "HOME": str(home),
        "TMPDIR": str(home),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": sysconfig.get_path("purelib"),
    }
    return subprocess.run(
        command, cwd=_ROOT, env=env, user=_NOBODY, group=_NOBODY, extra_groups=[],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def python_for_nobody(home: Path) -> str | None:
    """This Python, or where it lies in a closed home, the system's of the same version."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/python{version}"):
        try:
            if as_nobody(home, python, "-c", "import aiohttp, pytest, uvloop").returncode == 0:
                return python
        except OSError:
            continue
    return None


@pytest.mark.timeout(300)  # a whole suite: each of its tests has the usual limit
def test_the_contract_holds_for_an_ordinary_user():
    if os.geteuid() != 0:
        return  # nothing is left out: the suite beside this file runs as an ordinary user itself
    with short_directory() as home:
        home.chmod(0o777)
        python = python_for_nobody(home)
        if python is None:
            pytest.skip(f"user {_NOBODY} may not read {_ROOT}, or may not run {sys.executable}")
        chosen = "not uvloop and not twenty and not wake_up and not another_user"
        options = ("-q", "-p", "no:cacheprovider", "-k", chosen)
        done = as_nobody(home, python, "-m", "pytest", *options, *_SUITE)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
