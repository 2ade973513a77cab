"""The first step of `make`: the clone's `.venv`, in a clone of its own for each test."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.provision.kit import CLONE, FakeUv
from tests.provision.waiting import wait_until

# Like uv, as far as the first step calls it; `die` makes it fail as without a network.
FAKE_UV = """#!{python}
import os, pathlib, sys, time
home = pathlib.Path({home!r})
with (home / "calls").open("a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\\n")
if (home / "mode").read_text() == "hang":
    (home / "hanging").write_text(str(os.getpid()))
    while (home / "mode").read_text() == "hang":
        time.sleep(0.02)
"""

#: A loopback port on which nothing listens: the discard service.
NO_NETWORK = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1", "PIP_NO_INDEX": ""}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What the first step needs of a clone."""
    root = tmp_path / "clone"
    shutil.copytree(CLONE / "sparkd", root / "sparkd", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "Makefile"):
        shutil.copy(CLONE / name, root / name)
    return root


@pytest.fixture
def installer(uv: FakeUv) -> FakeUv:
    """The stand-in that accepts `pip install -e` too."""
    program = uv.home / "uv"
    program.write_text(FAKE_UV.format(python=sys.executable, home=str(uv.home)))
    return uv


def bootstrap(
    clone: Path, *extras: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sparkd.provision.bootstrap", *extras],
        cwd=clone,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_venv_is_made_once_and_then_kept(clone: Path, installer: FakeUv):
    first = bootstrap(clone, "fast")
    assert first.returncode == 0, first.stderr
    assert "✓ Making .venv" in first.stdout
    assert "✓ Installing sparkd[fast] into .venv" in first.stdout
    began = time.monotonic()
    second = bootstrap(clone, "fast")
    assert time.monotonic() - began < 2.0
    assert (second.returncode, second.stdout) == (0, "")
    assert len(installer.calls) == 1


def test_more_extras_and_a_changed_pyproject_are_installed_into_the_same_venv(
    clone: Path, installer: FakeUv
):
    bootstrap(clone, "fast")
    assert "Installing sparkd[fast,test]" in bootstrap(clone, "test").stdout
    assert bootstrap(clone, "fast").stdout == ""
    assert bootstrap(clone, "fast", "test").stdout == ""
    with (clone / "pyproject.toml").open("a") as file:
        file.write("\n# one more line\n")
    again = bootstrap(clone, "fast")
    assert "Making .venv" not in again.stdout
    assert len(installer.calls) == 3


def test_a_moved_clone_installs_again(clone: Path, installer: FakeUv):
    bootstrap(clone, "fast")
    moved = clone.rename(clone.with_name("moved"))
    assert "Installing sparkd[fast]" in bootstrap(moved, "fast").stdout


def test_ctrl_c_during_the_installation_makes_the_next_run_begin_anew(
    clone: Path, installer: FakeUv
):
    installer.become("hang")
    with subprocess.Popen(
        [sys.executable, "-m", "sparkd.provision.bootstrap", "fast"],
        cwd=clone,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as interrupted:
        wait_until(lambda: installer.hanging is not None)
        interrupted.send_signal(signal.SIGINT)
        _, said = interrupted.communicate(timeout=20)
    assert interrupted.returncode == 130
    assert "interrupted; the next run goes on from here" in said
    installer.become("ok")
    again = bootstrap(clone, "fast")
    assert again.returncode == 0
    assert "✓ Making .venv" in again.stdout


def test_without_a_network_it_says_so_and_the_next_run_begins_anew(
    clone: Path, tmp_path: Path, uv: FakeUv
):
    (uv.home / "uv").unlink()
    env = {**NO_NETWORK, "PATH": _path_without_uv()}
    failed = bootstrap(clone, "fast", env=env)
    assert failed.returncode == 1
    last = failed.stderr.strip().splitlines()[-1]
    assert last.startswith("error: Installing sparkd[fast] into .venv failed: the package index")
    assert "(hint: check the network" in last
    assert (clone / ".venv" / ".unfinished").exists()


def test_make_says_when_there_is_no_python(clone: Path, tmp_path: Path):
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "sh").symlink_to("/bin/sh")
    make = shutil.which("make")
    assert make is not None
    done = subprocess.run(
        [make, "run"],
        cwd=clone,
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "there is no Python 3.11 or newer (hint: apt install python3" in done.stderr


def test_every_target_of_the_makefile_has_at_most_three_lines():
    targets: dict[str, list[str]] = {}
    target: list[str] = []
    for line in (CLONE / "Makefile").read_text().splitlines():
        if line.startswith("\t"):
            target.append(line)
        elif line.partition(":")[0].isalpha():
            target = targets[line.partition(":")[0]] = []
    assert {"run", "test"} <= targets.keys()
    assert all(0 < len(lines) <= 3 for lines in targets.values())


def _path_without_uv() -> str:
    places = os.environ["PATH"].split(os.pathsep)
    return os.pathsep.join(place for place in places if not Path(place, "uv").exists())
