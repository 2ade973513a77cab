"""Starts that real vLLM refuses: the client learns the cause, the status and the last lines."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import openai
import pytest

from sparkd.provision.tiny_models import TinyKind
from tests.real.kit import Daemon, Trace, chat, model_file, running, when_it_ends

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def daemon(
    tiny_models: Mapping[TinyKind, Path], runtimes: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    llama = tiny_models[TinyKind.LLAMA]
    hollow = tmp_path_factory.mktemp("weights") / "hollow"
    shutil.copytree(llama, hollow)
    (hollow / "model.safetensors").write_bytes(b"")
    models = {
        "flag": model_file(llama, args=["--no-such-flag"]),
        "length": model_file(llama, max_model_len=99_999_999),
        "hollow": model_file(hollow),
        "absent": model_file(hollow.parent / "absent"),
    }
    with running(models, limit="10GiB", runtimes=runtimes) as running_daemon:
        yield running_daemon


async def failure_of(daemon: Daemon, model: str) -> openai.APIStatusError:
    async with daemon.client() as client:
        with pytest.raises(openai.APIStatusError) as failed:
            await chat(client, model)
    return failed.value


async def told_after_exit(daemon: Daemon, model: str) -> tuple[openai.APIStatusError, float]:
    """The error, and how many seconds after the end of the engine's main process it came."""
    async with asyncio.TaskGroup() as group:
        failing = group.create_task(failure_of(daemon, model), name=model)
        trace = await engine_starts(daemon, model)
        ended = group.create_task(
            asyncio.to_thread(when_it_ends, trace.api_server), name="watch the exit"
        )
        error = await failing
        told_at = time.monotonic()
    return error, told_at - ended.result()


async def engine_starts(daemon: Daemon, model: str) -> Trace:
    while True:
        if await daemon.instance(model) is not None:
            trace = await daemon.trace(model)
            if len(trace.processes) >= 2:  # the shim and the engine
                return trace
        await asyncio.sleep(0.05)


@pytest.fixture(scope="module")
def failures(daemon: Daemon) -> Mapping[str, tuple[openai.APIStatusError, float]]:
    """All at once: each start takes ten seconds and more."""

    async def fail() -> Mapping[str, tuple[openai.APIStatusError, float]]:
        async with asyncio.TaskGroup() as group:
            failing = {
                model: group.create_task(told_after_exit(daemon, model), name=model)
                for model in ("flag", "length", "hollow")
            }
        return {model: task.result() for model, task in failing.items()}

    return asyncio.run(fail())


@pytest.mark.parametrize(
    ("model", "cause", "says"),
    [
        ("flag", "bad_flag", "unrecognized arguments: --no-such-flag"),
        ("length", "wrong_arguments", "greater than the derived max_model_len"),
        ("hollow", "missing_weights", "safetensor"),
    ],
)
def test_a_start_that_fails_is_told_at_once_with_its_cause(failures, model, cause, says):
    error, late = failures[model]
    assert error.status_code == 503
    assert error.code == "model_start_failed"
    assert error.body["cause"] == cause, error.body
    assert says in error.message.lower()
    assert "exit status 1" in error.message or "exit status 2" in error.message
    assert error.body["log_tail"]
    assert float(error.response.headers["Retry-After"]) >= 1
    assert late < 0.1


async def test_weights_that_are_not_there_are_told_before_anything_starts(daemon: Daemon):
    error = await failure_of(daemon, "absent")
    assert error.status_code == 503
    assert error.code == "model_not_available"
    assert "absent" in error.message
    assert "sparkd check" in error.message
    assert await daemon.instance("absent") is None
