"""The pins against the package index: complete, and with a wheel for every machine they name.

Needs uv and the index; metadata only, nothing is installed.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from sparkd.provision.installers import Uv, explain, find_installer
from sparkd.provision.recipes import Recipe, normal, read_recipe
from tests.left_out import leave_out
from tests.provision.kit import CLONE

RECIPES = [read_recipe(file) for file in sorted((CLONE / "conf" / "runtimes").glob("*.toml"))]
#: glibc 2.34: the newest that a wheel among the pins asks for (tilelang for aarch64).
PLATFORMS = ("x86_64-manylinux_2_34", "aarch64-manylinux_2_34")
CASES = [
    pytest.param(recipe, platform, minor, id=f"{recipe.name}-{platform.split('-')[0]}-3.{minor}")
    for recipe in RECIPES
    for platform in PLATFORMS
    for minor in range(11, 20)
    if recipe.accepts((3, minor))
]

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def resolver() -> Uv:
    installer = find_installer()
    if not isinstance(installer, Uv):
        leave_out("resolving the runtimes' pins: no uv, and pip could not install it")
    return installer


@pytest.mark.parametrize(("recipe", "platform", "minor"), CASES)
def test_every_pin_has_a_wheel(
    resolver: Uv, recipe: Recipe, platform: str, minor: int, tmp_path: Path
):
    elsewhere = {name for fallback in recipe.fallbacks for name in fallback.packages}
    pins = [str(pin) for pin in recipe.pins if pin.name not in elsewhere]
    wanted = tmp_path / "pins.txt"
    wanted.write_text("\n".join(pins))
    resolved = _compile(resolver, ["--no-deps", str(wanted)], platform, minor)
    left_out_by_marker = {pin.name for pin in recipe.pins if pin.marker}
    assert {pin.name for pin in recipe.pins} - resolved.keys() <= elsewhere | left_out_by_marker


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_pins_for_cuda_are_all_that_vllm_needs(resolver: Uv, platform: str, tmp_path: Path):
    (recipe,) = (recipe for recipe in RECIPES if recipe.name == "vllm-cuda")
    pinned = {pin.name: pin.version for pin in recipe.pins}
    wanted = tmp_path / "vllm.txt"
    wanted.write_text(f"vllm=={pinned['vllm']}\n")
    constraints = recipe.source.with_suffix(".lock")
    resolved = _compile(resolver, ["-c", str(constraints), str(wanted)], platform, 12)
    assert resolved.items() <= pinned.items()


def _compile(uv: Uv, what: Sequence[str], platform: str, minor: int) -> dict[str, str]:
    """Name to version, as resolved for that platform. Left out when the index is out of reach."""
    options = ["--only-binary", ":all:", "--no-header", "--no-annotate", "--no-config", "--quiet"]
    target = ["--python-platform", platform, "--python-version", f"3.{minor}"]
    argv = [uv.executable, "pip", "compile", *options, *target, *uv.source_arguments(), *what]
    done = subprocess.run(
        argv, env={**os.environ, **uv.env}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        cause, _ = explain(done.stderr.splitlines())
        if "reached" in cause or "in time" in cause:
            leave_out(f"resolving the runtimes' pins: {cause}")
        pytest.fail(done.stderr)
    lines = (line.partition(";")[0].strip() for line in done.stdout.splitlines())
    pairs = (line.partition("==") for line in lines if "==" in line)
    return {normal(name): version for name, _, version in pairs}
