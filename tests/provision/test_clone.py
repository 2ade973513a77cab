"""What `make run` keeps in a clone, and the configuration it writes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparkd import config
from sparkd.core.catalogue import Device
from sparkd.core.quantities import GIB, MIB
from sparkd.provision.clone import (
    LONGEST_SOCKET_DIRECTORY,
    CloneState,
    Offered,
    open_clone_state,
    socket_directory,
    write_configuration,
)
from sparkd.provision.runtimes import InstalledRuntime

TINY = Offered(id="tiny-llama", source="/weights/tiny-llama", description="tiny", tiny=True)
REAL = Offered(id="real", source="Qwen/Qwen3-0.6B", description="real", tiny=False)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[CloneState]:
    opened = open_clone_state(tmp_path / "run")
    yield opened
    shutil.rmtree(opened.sockets)  # it may lie outside of tmp_path


def installed(state: CloneState, device: Device) -> InstalledRuntime:
    """A runtime as far as the configuration looks at it."""
    directory = state.runtimes / "vllm"
    (directory / "bin").mkdir(parents=True)
    program = directory / "bin" / "vllm"
    program.touch(mode=0o755)
    (directory / "runtime.toml").write_text(
        f'name = "vllm"\nkind = "venv"\ndevice = "{device}"\ncommand = ["bin/vllm", "serve"]\n'
    )
    return InstalledRuntime(name="vllm", device=device, directory=directory, python=program)


@pytest.mark.parametrize("device", list(Device))
def test_the_daemon_accepts_what_is_written(state: CloneState, device: Device):
    write_configuration(state, 8123, installed(state, device), [TINY, REAL])
    loaded = config.load(state.config)
    settings = loaded.settings
    assert [str(address) for address in settings.server.listen] == ["127.0.0.1:8123"]
    assert settings.paths.run == state.sockets
    models = {model.id: model for model in settings.catalogue}
    assert set(models) == {"tiny-llama", "real"}
    assert all(model.launch.runtime.name == "vllm" for model in models.values())
    complaints = [str(warning) for warning in loaded.warnings]
    assert all("weights" in text or "Qwen" in text for text in complaints), complaints


def test_a_tiny_model_for_the_cpu_starts_as_fast_as_vllm_can(state: CloneState):
    write_configuration(state, 8123, installed(state, Device.CPU), [TINY])
    (model,) = config.load(state.config).settings.catalogue
    assert model.launch.args == ("--enforce-eager",)
    assert model.launch.kv_cache == 64 * MIB
    assert model.launch.env["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert model.budget < 1.5 * GIB


def test_files_of_the_users_own_are_kept(state: CloneState):
    runtime = installed(state, Device.CPU)
    own = state.catalogue / "mine.toml"
    own.write_text('source = "/mine"\nruntime = "vllm"\n[memory]\nbudget = "1GiB"\n')
    write_configuration(state, 8123, runtime, [TINY])
    assert {model.id for model in config.load(state.config).settings.catalogue} == {
        "tiny-llama",
        "mine",
    }


def test_a_short_path_keeps_its_sockets_inside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    short = Path("/tmp") / tmp_path.parent.name[-6:]  # no longer than an ordinary clone's
    short.mkdir()
    try:
        assert socket_directory(short) == short / "r"
        assert socket_directory(short) == short / "r"
    finally:
        shutil.rmtree(short)


def test_a_long_path_gets_a_short_directory_that_is_found_again(tmp_path: Path):
    root = tmp_path / ("long" * 15)
    root.mkdir()
    first = socket_directory(root)
    try:
        assert len(str(first)) <= LONGEST_SOCKET_DIRECTORY
        assert first.stat().st_mode & 0o777 == 0o700
        assert socket_directory(root) == first
    finally:
        shutil.rmtree(first)
    second = socket_directory(root)  # /tmp was cleaned meanwhile
    assert second.is_dir()
    shutil.rmtree(second)


def test_a_short_directory_that_others_may_enter_is_not_used_again(tmp_path: Path):
    root = tmp_path / ("long" * 15)
    root.mkdir()
    first = socket_directory(root)
    first.chmod(0o755)
    second = socket_directory(root)
    assert second != first
    shutil.rmtree(first)
    shutil.rmtree(second)


def test_the_users_runtime_directory_is_preferred_where_it_is_short_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    root = tmp_path / ("long" * 15)
    root.mkdir()
    own = Path("/tmp") / f"x{tmp_path.parent.name[-4:]}"
    own.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(own))
    try:
        assert socket_directory(root).parent == own
    finally:
        shutil.rmtree(own)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(root))
    elsewhere = socket_directory(root)
    assert elsewhere.parent == Path("/tmp")
    shutil.rmtree(elsewhere)
