"""The daemon that the tests of this folder share, and the models it knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from sparkd.core.catalogue import Runtime
from sparkd.provision.tiny_models import TinyKind
from tests.real.kit import Daemon, model_file, running


@pytest.fixture(scope="session")
def runtimes(runtime: Runtime) -> Path:
    return Path(runtime.root).parent


@pytest.fixture(scope="session")
def house(tiny_models: Mapping[TinyKind, Path], runtimes: Path) -> Iterator[Daemon]:
    """Two chat models that do not fit together, and one that embeds and fits beside either."""
    models = {
        "a": model_file(tiny_models[TinyKind.LLAMA], aliases=["alpha"]),
        "b": model_file(tiny_models[TinyKind.QWEN3]),
        "embed": model_file(
            tiny_models[TinyKind.BERT], task="embed", budget="0.8GiB", max_model_len=None
        ),
    }
    with running(models, limit="2.1GiB", runtimes=runtimes) as daemon:
        yield daemon
