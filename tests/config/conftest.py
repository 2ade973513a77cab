"""A configuration on disk, written file by file, that loads without a complaint."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparkd.config import Loaded, load
from sparkd.errors import ConfigError, Problem

SPARKD = """
[paths]
models = ["models", "local"]
runtimes = "runtimes"
"""
RUNTIME = """
name = "vllm-cpu"
kind = "venv"
device = "cpu"
command = ["bin/vllm", "serve"]
[env]
DO_NOT_TRACK = "1"
[provenance]
built = 2026-11-23
"""
MODEL = """
source = "../weights"
runtime = "vllm-cpu"
[memory]
budget = "2GiB"
"""


class Site:
    """The files of one sparkd, below one directory."""

    def __init__(self, root: Path):
        self.root = root

    def write(self, name: str, text: str | bytes) -> Path:
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return file

    def load(self, *, strict: bool = True) -> Loaded:
        return load(self.root / "sparkd.toml", strict=strict)

    def problems(self, *, strict: bool = True) -> list[Problem]:
        """What a load complains about, with the paths made relative to this directory."""
        with pytest.raises(ConfigError) as caught:
            self.load(strict=strict)
        return [self.relative(problem) for problem in caught.value.problems]

    def relative(self, problem: Problem) -> Problem:
        def short(text: str) -> str:
            return text.replace(f"{self.root}/", "")

        return Problem(
            where=short(problem.where),
            message=short(problem.message),
            hint=None if problem.hint is None else short(problem.hint),
        )


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """One runtime, weights, and one model `small`; the second directory of models is empty."""
    site = Site(tmp_path)
    site.write("sparkd.toml", SPARKD)
    site.write("models/small.toml", MODEL)
    site.write("runtimes/vllm-cpu/runtime.toml", RUNTIME)
    site.write("runtimes/vllm-cpu/bin/vllm", "#!/bin/sh\n").chmod(0o755)
    (tmp_path / "weights").mkdir()
    (tmp_path / "local").mkdir()
    return site
