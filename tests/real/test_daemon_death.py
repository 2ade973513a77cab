"""SIGKILL to the daemon itself, and the daemon of an ordinary user, with real engines."""

from __future__ import annotations

import asyncio
import os
import sysconfig
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import openai
import pytest

from sparkd.core.catalogue import Runtime
from sparkd.provision.tiny_models import TinyKind
from tests.left_out import leave_out
from tests.real.kit import (
    NOBODY,
    Daemon,
    daemon_directory,
    engine_core_appears,
    model_file,
    ordinary_user,
    python_of_everybody,
    site_packages,
)
from tests.real.test_engine_death import GONE_WITHIN, TOLD_WITHIN, ask, broken_stream

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(240)]


async def hangs_up(daemon: Daemon, model: str) -> float:
    """When the client of a cold model learned that its daemon is gone."""
    with pytest.raises(openai.APIConnectionError):
        await ask(daemon, model)
    return time.monotonic()


async def test_a_killed_daemon_leaves_nothing_and_the_next_one_serves(
    tiny_models: Mapping[TinyKind, Path], runtimes: Path
):
    with daemon_directory() as directory:
        daemon = Daemon(directory)
        models = {"a": model_file(tiny_models[TinyKind.LLAMA])}
        daemon.configure(models, limit="2GiB", runtimes=runtimes)
        daemon.start()
        try:
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(hangs_up(daemon, "a"), name="wait")
                trace = await engine_core_appears(daemon, "a")
                killed_at = time.monotonic()
                daemon.kill()
                await trace.is_gone(GONE_WITHIN)
            assert waiting.result() - killed_at < TOLD_WITHIN

            daemon.start()
            await ask(daemon, "a")
            trace = await daemon.trace("a")
            late = await broken_stream(daemon, "a", daemon.kill)
            assert late < TOLD_WITHIN
            await trace.is_gone(GONE_WITHIN - late)

            daemon.start()
            await ask(daemon, "a")
        finally:
            status = daemon.stop()
        assert status == 0, daemon.log


@pytest.fixture
def home() -> Iterator[Path]:
    with daemon_directory() as directory:
        if (user := ordinary_user()) is not None:
            os.chown(directory, user, user)
        yield directory


async def test_the_daemon_of_an_ordinary_user_serves_and_leaves_nothing(
    home: Path, runtime: Runtime, tiny_models: Mapping[TinyKind, Path]
):
    python = python_of_everybody(runtime)
    if python is None:
        leave_out(f"user {NOBODY} may run no Python here: this clone's lies in a closed home")
    runtimes = home / "runtimes"
    (runtimes / "mine").mkdir(parents=True)
    (runtimes / "mine" / "runtime.toml").write_text(f"""
name = "mine"
kind = "venv"
device = "cpu"
command = ["{python}", "-m", "vllm.entrypoints.cli.main", "serve"]
[env]
PYTHONPATH = "{site_packages(runtime)}"
""")
    env = {"HOME": str(home), "PYTHONPATH": sysconfig.get_path("purelib")}
    daemon = Daemon(home, python=(python,), user=ordinary_user(), env=env)
    models = {"a": model_file(tiny_models[TinyKind.LLAMA], runtime="mine")}
    daemon.configure(models, limit="2GiB", runtimes=runtimes)
    daemon.start()
    try:
        await ask(daemon, "a")
        trace = await daemon.trace("a")
    finally:
        status = daemon.stop()
    assert status == 0, daemon.log
    assert trace.left() == []
