"""Real vLLM on the CPU for tests: one runtime and three tiny models, made once per clone.

They lie in the clone's `.run`, where `make run` has them too, and are kept between runs. They are
made before the first test, because no test's time limit has room for it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from sparkd.core.catalogue import Device, Runtime, RuntimeKind
from sparkd.errors import SparkdError
from sparkd.provision.progress import Progress
from sparkd.provision.recipes import read_recipe
from sparkd.provision.runtimes import RECORD, build_runtime
from sparkd.provision.tiny_models import TinyKind, make_tiny_model
from tests.left_out import leave_out

CLONE = Path(__file__).parents[1]
RECIPE = CLONE / "conf" / "runtimes" / "vllm-cpu.toml"
RUN = CLONE / ".run"

_PREPARED = pytest.StashKey[Mapping[TinyKind, Path] | SparkdError]()


def prepare_if_used(items: Sequence[pytest.Item], config: pytest.Config) -> None:
    """Makes what is missing, with progress on the terminal, when any of `items` needs it."""
    if any("prepared_vllm" in getattr(item, "fixturenames", ()) for item in items):
        capture = config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled():
            config.stash[_PREPARED] = _prepare(Progress())


def _prepare(progress: Progress) -> Mapping[TinyKind, Path] | SparkdError:
    try:
        installed = build_runtime(read_recipe(RECIPE), RUN / "runtimes", progress)
        return {
            kind: make_tiny_model(installed.python, kind, RUN / "models" / f"tiny-{kind}", progress)
            for kind in TinyKind
        }
    except SparkdError as error:
        return error


@pytest.fixture(scope="session")
def prepared_vllm(pytestconfig: pytest.Config) -> Mapping[TinyKind, Path]:
    made = pytestconfig.stash[_PREPARED]
    if isinstance(made, SparkdError):
        leave_out(f"real vLLM: {made.sentence()}")
    return made


@pytest.fixture(scope="session")
def runtime(prepared_vllm: Mapping[TinyKind, Path]) -> Runtime:
    """The installed runtime `vllm-cpu`, as a model's launch names it."""
    directory = RUN / "runtimes" / "vllm-cpu"
    record = tomllib.loads((directory / RECORD).read_text("utf-8"))
    return Runtime(
        name=record["name"],
        kind=RuntimeKind(record["kind"]),
        device=Device(record["device"]),
        root=str(directory),
        command=tuple(record["command"]),
        env=record["env"],
    )


@pytest.fixture(scope="session")
def tiny_models(prepared_vllm: Mapping[TinyKind, Path]) -> Mapping[TinyKind, Path]:
    """The directories of the tiny models: `llama` and `qwen3` chat, `bert` embeds."""
    return prepared_vllm
