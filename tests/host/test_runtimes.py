"""What is missing is named with the place where it is expected, before anything is started."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from sparkd.core.catalogue import Device, LaunchSpec, Runtime, RuntimeKind
from sparkd.errors import ModelUnavailableError
from sparkd.host.runtimes import check


@pytest.fixture
def launch(tmp_path: Path) -> LaunchSpec:
    root, weights = tmp_path / "venv", tmp_path / "weights"
    (root / "bin").mkdir(parents=True)
    (root / "bin/vllm").write_text("#!/bin/sh\n")
    (root / "bin/vllm").chmod(0o755)
    weights.mkdir()
    (weights / "config.json").write_text("{}")
    (weights / "model.safetensors").write_text("")
    runtime = Runtime(
        name="cpu",
        kind=RuntimeKind.VENV,
        device=Device.CPU,
        root=str(root),
        command=("bin/vllm", "serve"),
        env={"HF_HOME": str(tmp_path / "hf")},
    )
    return LaunchSpec(runtime=runtime, weights=str(weights), served_names=("tiny",))


def refusal(launch: LaunchSpec) -> ModelUnavailableError:
    with pytest.raises(ModelUnavailableError) as caught:
        check(launch)
    assert caught.value.hint is not None
    assert "sparkd check" in caught.value.hint
    return caught.value


def test_a_complete_model_passes_within_milliseconds(launch: LaunchSpec):
    before = time.perf_counter()
    check(launch)
    assert time.perf_counter() - before < 0.05


def test_a_missing_runtime_is_named_with_the_command_that_builds_one(launch: LaunchSpec):
    gone = replace(launch, runtime=replace(launch.runtime, root="/nowhere"))
    error = refusal(gone)
    assert error.message == "cannot use runtime 'cpu': there is no directory /nowhere"
    assert "make run" in (error.hint or "")


@pytest.mark.parametrize("mode", [None, 0o644])
def test_a_command_that_is_no_executable_is_named(launch: LaunchSpec, mode: int | None):
    program = Path(launch.runtime.root, "bin/vllm")
    program.unlink() if mode is None else program.chmod(mode)
    assert "bin/vllm is not an executable file" in refusal(launch).message


def test_an_absolute_command_needs_no_root_of_its_own(launch: LaunchSpec):
    check(replace(launch, runtime=replace(launch.runtime, command=("/bin/sh", "serve"))))


def test_missing_weights_are_named(launch: LaunchSpec):
    directory = Path(launch.weights)
    (directory / "model.safetensors").unlink()
    assert f"cannot find weights (*.safetensors) in {directory}" in refusal(launch).message
    (directory / "config.json").unlink()
    assert f"cannot find config.json in {directory}" in refusal(launch).message
    directory.rmdir()
    assert f"there is no directory {directory}" in refusal(launch).message


@pytest.mark.parametrize("name", ["model.gguf"])
def test_one_gguf_file_is_a_model(launch: LaunchSpec, name: str):
    file = Path(launch.weights, name)
    file.write_text("")
    check(replace(launch, weights=str(file)))


def test_a_hub_name_is_looked_up_in_the_cache_the_engine_will_use(
    launch: LaunchSpec, tmp_path: Path
):
    hub = replace(launch, weights="org/tiny")
    error = refusal(hub)
    assert str(tmp_path / "hf/hub") in error.message
    snapshot = tmp_path / "hf/hub/models--org--tiny/snapshots/abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").symlink_to(snapshot / "../../blobs/none")
    refusal(hub)  # a download that was broken off
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").write_text("{}")
    check(hub)
