"""SIGKILL to each of vLLM's processes in each phase of its life, with real engines."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import openai
import pytest
from openai.types.chat import ChatCompletionChunk

from sparkd.provision.tiny_models import TinyKind
from tests.real.kit import (
    MANY_TOKENS,
    Daemon,
    Trace,
    chat,
    chat_stream,
    engine_core_appears,
    model_file,
    running,
)

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(300)]

#: How long until a client is told, and until nothing is left. Source: issue of this part.
TOLD_WITHIN, GONE_WITHIN = 2.0, 5.0


@pytest.fixture(scope="module")
def daemon(tiny_models: Mapping[TinyKind, Path], runtimes: Path) -> Iterator[Daemon]:
    models = {
        "server": model_file(tiny_models[TinyKind.LLAMA]),
        "core": model_file(tiny_models[TinyKind.LLAMA]),
    }
    with running(models, limit="4GiB", runtimes=runtimes) as running_daemon:
        yield running_daemon


async def ask(daemon: Daemon, model: str) -> None:
    async with daemon.client() as client:
        answer = await chat(client, model, 4)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4


async def broken_stream(daemon: Daemon, model: str, kill: Callable[[], None]) -> float:
    """Kills at the first chunk of a long stream; how long until its client knew that it is broken.

    From within the loop that reads: a client with chunks to parse runs no other task.
    """
    killed_at = 0.0

    def killing() -> None:
        nonlocal killed_at
        kill()
        killed_at = time.monotonic()

    async with daemon.client() as client:
        stream = await chat_stream(client, model, MANY_TOKENS)
        with pytest.raises(openai.APIError):
            await _read(stream, killing)
    return time.monotonic() - killed_at


async def _read(stream: openai.AsyncStream[ChatCompletionChunk], then: Callable[[], None]) -> None:
    first = True
    async for _ in stream:
        if first:
            then()
        first = False


def victim(trace: Trace, model: str) -> int:
    return trace.api_server if model == "server" else trace.engine_core


async def killed_while_loading(daemon: Daemon, model: str) -> None:
    async with asyncio.TaskGroup() as group:

        async def told() -> float:
            with pytest.raises(openai.APIStatusError) as failed:
                await ask(daemon, model)
            assert failed.value.code == "model_start_failed"
            return time.monotonic()

        waiting = group.create_task(told(), name=f"wait for {model}")
        trace = await engine_core_appears(daemon, model)
        os.kill(victim(trace, model), signal.SIGKILL)
        killed_at = time.monotonic()
        await trace.is_gone(GONE_WITHIN)
    late = waiting.result() - killed_at
    assert late < TOLD_WITHIN, "killed while loading"


async def killed_in_a_stream(daemon: Daemon, model: str) -> None:
    trace = await daemon.trace(model)
    doomed = victim(trace, model)
    late = await broken_stream(daemon, model, lambda: os.kill(doomed, signal.SIGKILL))
    assert late < TOLD_WITHIN, "killed in a stream"
    await trace.is_gone(GONE_WITHIN - late)


async def killed_idle(daemon: Daemon, model: str) -> None:
    trace = await daemon.trace(model)
    os.kill(victim(trace, model), signal.SIGKILL)
    await trace.is_gone(GONE_WITHIN)


async def _one(daemon: Daemon, model: str) -> None:
    await killed_while_loading(daemon, model)
    await ask(daemon, model)
    await killed_in_a_stream(daemon, model)
    await ask(daemon, model)
    # A third failure in a row would make the breaker refuse; an operator's load forgives two.
    await daemon.control("POST", f"/models/{model}/load")
    await killed_idle(daemon, model)
    await ask(daemon, model)


async def test_whichever_process_is_killed_and_when_the_client_is_told_and_the_next_one_served(
    daemon: Daemon,
):
    async with asyncio.TaskGroup() as group:  # side by side: each start takes half a minute
        for model in ("server", "core"):
            group.create_task(_one(daemon, model), name=model)
