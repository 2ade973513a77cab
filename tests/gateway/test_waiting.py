"""A client whose model is cold: comments for streams, patience for the rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sparkd.errors import QueueTimeoutError
from tests.gateway.kit import Rig, error_of, rigged
from tests.gateway.test_engine_death import error_event, read_broken
from tests.scripted_upstream import Exchange

COMMENT = (
    b': sparkd model=tiny state=starting phase="loading weights 40%" waited=20s estimate=15s\n\n'
)
EVENTS = b'data: {"choices":[]}\n\ndata: [DONE]\n\n'


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rigged(str(tmp_path / "engine.sock"), comment_interval=0.05) as made:
        made.supervisor.on_lease = lambda _: None
        made.upstream.script = stream
        yield made


async def stream(x: Exchange) -> None:
    await x.read_body()
    await x.begin_stream()
    await x.chunk(EVENTS)
    await x.end_stream()


async def until_asked(rig: Rig) -> None:
    await rig.supervisor.asked.wait()
    rig.supervisor.asked.clear()


async def test_a_waiting_stream_gets_comments_and_then_the_engines_events(rig: Rig):
    async with rig.chat(stream=True) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert response.headers["Cache-Control"] == "no-cache"
        assert response.headers["X-Sparkd-Model"] == "tiny"
        assert response.headers["X-Request-Id"]
        got = await response.content.readexactly(2 * len(COMMENT))
        rig.supervisor.leases[0].grant()
        got += await response.read()
    before, _, after = got.partition(b"data: ")
    assert before == COMMENT * (len(before) // len(COMMENT))
    assert b"data: " + after == EVENTS


async def test_a_request_served_before_the_first_comment_keeps_the_engines_head(rig: Rig):
    async def script(x: Exchange) -> None:
        await x.read_body()
        await x.answer(b'{"error":{"message":"too long","type":"t"}}', "400 Bad Request")

    rig.upstream.script = script
    rig.supervisor.on_lease = lambda lease: lease.grant()
    async with rig.chat(stream=True) as response:
        assert response.status == 400


async def test_a_request_that_does_not_stream_just_waits(rig: Rig):
    rig.upstream.script = lambda x: x.answer(b"{}")
    async with asyncio.TaskGroup() as group:

        async def ask() -> tuple[int, bytes]:
            async with rig.chat() as response:
                return response.status, await response.read()

        asking = group.create_task(ask())
        await until_asked(rig)
        done, _ = await asyncio.wait([asking], timeout=0.2)  # four intervals
        assert not done
        rig.supervisor.leases[0].grant()
    assert asking.result() == (200, b"{}")


async def test_an_engine_error_after_comments_is_an_event_and_a_break(rig: Rig):
    async def script(x: Exchange) -> None:
        await x.read_body()
        await x.answer(
            b'{"error":{"message":"too long","type":"t","param":null,"code":400}}', "400"
        )

    rig.upstream.script = script
    async with rig.chat(stream=True) as response:
        await response.content.readexactly(len(COMMENT))
        rig.supervisor.leases[0].grant()
        got = await read_broken(response)
    assert error_event(got)["message"] == "too long"


async def test_an_answer_that_is_no_stream_after_comments_is_an_error(rig: Rig):
    rig.upstream.script = lambda x: x.answer(b"{}")
    async with rig.chat(stream=True) as response:
        await response.content.readexactly(len(COMMENT))
        rig.supervisor.leases[0].grant()
        got = await read_broken(response)
    assert error_event(got)["code"] == "upstream_unavailable"


async def test_a_refusal_after_comments_is_an_event_and_a_break(rig: Rig):
    async with rig.chat(stream=True) as response:
        await response.content.readexactly(len(COMMENT))
        rig.supervisor.leases[0].refuse(QueueTimeoutError("waited too long"))
        got = await read_broken(response)
    assert error_event(got)["code"] == "queue_timeout"


async def test_death_after_comments_and_before_the_engines_first_byte_is_retried(rig: Rig):
    async def script(x: Exchange) -> None:
        await x.read_body()
        if rig.supervisor.questions == 0:
            x.abort()
        else:
            await stream_on(x)

    async def stream_on(x: Exchange) -> None:
        await x.begin_stream()
        await x.chunk(EVENTS)
        await x.end_stream()

    rig.upstream.script = script
    rig.supervisor.on_question = lambda _: True
    async with rig.chat(stream=True) as response:
        await until_asked(rig)
        await response.content.readexactly(len(COMMENT))
        rig.supervisor.leases[0].grant()
        await until_asked(rig)
        rig.supervisor.leases[1].grant()
        assert (await response.read()).endswith(EVENTS)


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_client_that_leaves_while_it_waits_leaves_the_queue(rig: Rig, streaming: bool):
    async with asyncio.TaskGroup() as group:

        async def ask() -> None:
            async with rig.chat(stream=streaming) as response:
                await response.read()

        asking = group.create_task(ask())
        await until_asked(rig)
        asking.cancel()
    async with asyncio.timeout(1):
        await rig.supervisor.leases[0].left.wait()
    assert rig.upstream.exchanges == []


async def test_what_is_wrong_is_said_at_once_and_not_after_a_wait(rig: Rig):
    async with rig.chat(model="nope", stream=True) as response:
        assert response.status == 404
        assert error_of(await response.read())["code"] == "model_not_found"
    assert rig.supervisor.leases == []
