"""The generated models: the same every time, complete or absent, with words to say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from sparkd.core.catalogue import Runtime
from sparkd.errors import ProvisionError
from sparkd.provision.tiny_models import STAMP, TinyKind, make_tiny_model
from tests.provision.kit import Shown

FAKE_PYTHON = """#!/bin/sh
echo made >> {calls}
mkdir -p "$2" && touch "$2/config.json"
exit {status}
"""


def fake_python(tmp_path: Path, status: int = 0) -> Path:
    """Runs no generator, but leaves a directory as one would; even when it fails."""
    program = tmp_path / "python"
    program.write_text(FAKE_PYTHON.format(calls=tmp_path / "calls", status=status))
    program.chmod(0o755)
    return program


def test_a_model_is_made_once(tmp_path: Path, shown: Shown):
    python = fake_python(tmp_path)
    directory = tmp_path / "models" / "tiny"
    directory.parent.mkdir()
    for _ in range(2):
        assert make_tiny_model(python, TinyKind.LLAMA, directory, shown.progress) == directory
    assert (tmp_path / "calls").read_text() == "made\n"
    make_tiny_model(python, TinyKind.LLAMA, directory, shown.progress, context=4096)
    assert (tmp_path / "calls").read_text() == "made\nmade\n"


def test_a_generator_that_fails_leaves_no_directory(tmp_path: Path, shown: Shown):
    directory = tmp_path / "models" / "tiny"
    directory.parent.mkdir()
    with pytest.raises(ProvisionError, match="cannot make the tiny model tiny"):
        make_tiny_model(fake_python(tmp_path, 3), TinyKind.LLAMA, directory, shown.progress)
    assert [path.name for path in directory.parent.iterdir()] == [".tiny.lock"]


@pytest.mark.vllm
def test_the_same_arguments_give_the_same_files(
    runtime: Runtime, tiny_models: Mapping[TinyKind, Path], tmp_path: Path, shown: Shown
):
    python = Path(runtime.root, "bin", "python")
    again = make_tiny_model(python, TinyKind.QWEN3, tmp_path / "again", shown.progress)
    assert digests(again) == digests(tiny_models[TinyKind.QWEN3])
    other = make_tiny_model(python, TinyKind.QWEN3, tmp_path / "other", shown.progress, seed=1)
    differing = digests(other).items() ^ digests(again).items()
    assert {name for name, _ in differing} == {"model.safetensors", STAMP}


@pytest.mark.vllm
def test_the_models_are_small_and_of_three_architectures(tiny_models: Mapping[TinyKind, Path]):
    architectures = {
        kind: json.loads((place / "config.json").read_text())["architectures"]
        for kind, place in tiny_models.items()
    }
    assert architectures == {
        TinyKind.LLAMA: ["LlamaForCausalLM"],
        TinyKind.QWEN3: ["Qwen3ForCausalLM"],
        TinyKind.BERT: ["BertModel"],
    }
    for place in tiny_models.values():
        assert sum(file.stat().st_size for file in place.rglob("*")) < 2**20
        assert (place / "tokenizer.json").exists()


def digests(directory: Path) -> dict[str, str]:
    return {
        str(file.relative_to(directory)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in directory.rglob("*")
        if file.is_file()
    }
