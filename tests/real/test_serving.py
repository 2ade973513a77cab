"""The main job: two real models that do not fit together, asked by the official client.

The tests run in this order and use what the ones before have loaded; each also passes alone.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

import aiohttp
import openai
import pytest

from tests.real.kit import (
    MANY_TOKENS,
    PROMPT,
    Daemon,
    chat,
    chat_stream,
    engine_core_appears,
    engine_session,
    metric,
)

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(180)]


async def lines_of(answer: aiohttp.ClientResponse) -> AsyncIterator[str]:
    async for line in answer.content:
        if text := line.decode().strip():
            yield text


async def raw_stream(daemon: Daemon, model: str) -> list[str]:
    """All lines of a streamed answer, with the comments that clients skip."""
    body = {"model": model, "messages": PROMPT, "max_tokens": 4, "stream": True}
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session,
        session.post(f"{daemon.url}/v1/chat/completions", json=body) as answer,
    ):
        assert answer.status == 200
        return [line async for line in lines_of(answer)]


async def words(client: openai.AsyncOpenAI, model: str, tokens: int = 8) -> int:
    """Streams an answer of exactly so many tokens and returns how many the engine counted."""
    stream = await chat_stream(client, model, tokens)
    used = finished = None
    async for chunk in stream:
        used = chunk.usage or used
        finished = next((c.finish_reason for c in chunk.choices if c.finish_reason), finished)
    assert finished == "length"
    assert used is not None
    return int(used.completion_tokens)


async def test_a_cold_model_tells_a_streaming_client_what_its_engine_does(house: Daemon):
    await house.control("POST", "/models/embed/load", {"wait": False})  # for a later test
    lines = await raw_stream(house, "a")
    comments = [line for line in lines if line.startswith(":")]
    assert comments
    assert all(line.startswith(": sparkd model=a state=starting") for line in comments[2:])
    phases = {line.partition('phase="')[2].partition('"')[0] for line in comments} - {""}
    assert len(phases) >= 3, phases
    assert not any("estimate=" in line for line in comments), "nothing is known of a first start"
    assert lines[-1] == "data: [DONE]"
    assert lines.index(comments[-1]) < lines.index(next(x for x in lines if x[:5] == "data:"))


async def test_embeddings_are_served_and_a_chat_with_that_model_is_refused(house: Daemon):
    async with house.client() as client:
        made = await client.embeddings.create(model="embed", input=["one", "two"])
        with pytest.raises(openai.NotFoundError) as refused:
            await chat(client, "embed")
        with pytest.raises(openai.NotFoundError):
            await client.embeddings.create(model="a", input="one")
    assert len(made.data) == 2
    assert len(made.data[0].embedding) > 8
    assert made.model == "embed"
    assert refused.value.code == "task_not_supported"


async def test_the_catalogue_names_every_model_and_an_alias_reaches_the_engine(house: Daemon):
    async with house.client() as client:
        listed = {model.id: model for model in (await client.models.list()).data}
        by_alias = await chat(client, "alpha")
    assert set(listed) == {"a", "b", "embed"}
    extra = listed["a"].model_extra or {}
    assert extra["max_model_len"] == 2048
    assert extra["aliases"] == ["alpha"]
    assert by_alias.usage is not None
    assert by_alias.usage.completion_tokens == 8
    assert by_alias.model == "a"


async def test_a_model_is_also_reached_by_the_path(house: Daemon):
    body = {"messages": PROMPT, "max_tokens": 4}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{house.url}/v1/a/chat/completions", json=body) as answer,
    ):
        assert answer.status == 200, await answer.text()
        assert (await answer.json())["model"] == "a"


@pytest.mark.parametrize(
    ("extra", "names"),
    [
        ({"temperature": -1}, "temperature"),
        ({"messages": [{"role": "user", "content": "a b " * 3000}]}, "2048"),
        ({"max_tokens": 5000, "stream": True}, "max_model_len"),
    ],
    ids=["temperature", "prompt too long", "too many tokens, streamed"],
)
async def test_what_the_engine_refuses_reaches_the_client_unchanged(house: Daemon, extra, names):
    body = {"model": "a", "messages": PROMPT, **extra}
    trace = await house.trace("a")
    async with aiohttp.ClientSession() as session, engine_session(trace) as engine:
        async with session.post(f"{house.url}/v1/chat/completions", json=body) as answer:
            through = answer.status, answer.content_type, json.loads(await answer.read())
        async with engine.post("/v1/chat/completions", json=body) as answer:
            straight = answer.status, answer.content_type, json.loads(await answer.read())
    assert through == straight
    assert through[0] == 400
    assert names in through[2]["error"]["message"] + str(through[2]["error"]["param"])


async def test_a_client_that_goes_away_ends_its_generation(house: Daemon):
    async with house.client() as client:
        await words(client, "a")
        async with engine_session(await house.trace("a")) as engine:
            before = await metric(engine, "vllm:generation_tokens_total")
            stream = await chat_stream(client, "a", MANY_TOKENS)
            await anext(aiter(stream))
            assert await metric(engine, "vllm:num_requests_running") == 1
            await stream.close()
            async with asyncio.timeout(2):
                while await metric(engine, "vllm:num_requests_running"):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            generated = await metric(engine, "vllm:generation_tokens_total") - before
            assert generated < MANY_TOKENS
    found = await house.instance("a")
    assert found is not None
    assert found["in_flight"] == 0


async def test_two_models_that_do_not_fit_together_take_turns(house: Daemon):
    """A, B, A, B, where every switch is asked for while a long stream of the other runs."""
    async with house.client() as client, asyncio.TaskGroup() as group:
        first = group.create_task(words(client, "a", MANY_TOKENS), name="stream on a")
        while (await house.control("GET", "/models/a"))["instance"]["in_flight"] == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        old = await house.trace("a")
        second = group.create_task(words(client, "b"), name="b")
        assert await first == MANY_TOKENS
        assert await second == 8
        assert old.left() == [], "b was ready while something of a was still there"

        third = group.create_task(words(client, "b", MANY_TOKENS), name="stream on b")
        while (await house.control("GET", "/models/b"))["instance"]["in_flight"] == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        watched = group.create_task(raw_stream(house, "a"), name="watch a")
        answer = await chat(client, "a")
        assert await third == MANY_TOKENS
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 8
        estimates = [x for x in await watched if x[0] == ":" and "estimate=" in x]
        assert estimates, "the second start of a model has an estimate"

        assert (await chat(client, "b")).model == "b"
    failures = (await house.control("GET", "/status"))["failures"]
    assert failures == []


async def test_unloading_a_model_that_loads_returns_within_ten_seconds(house: Daemon):
    """About nine seconds into its start vLLM swallows a SIGTERM, and would hang for 600 s."""
    await house.control("POST", "/models/b/unload")
    async with house.client() as client, asyncio.TaskGroup() as group:

        async def told() -> openai.APIStatusError:
            with pytest.raises(openai.APIStatusError) as refused:
                await chat(client, "b")
            return refused.value

        waiting = group.create_task(told(), name="wait for b")
        trace = await engine_core_appears(house, "b")
        began = time.monotonic()
        assert (await house.control("POST", "/models/b/unload"))["unloaded"] is True
        took = time.monotonic() - began
        assert (await waiting).code == "model_unloaded"
    assert took < 10
    assert trace.left() == []
