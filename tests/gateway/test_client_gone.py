"""A client that leaves: the engine must notice at once, or it generates for nobody."""

from __future__ import annotations

import asyncio

import pytest

from tests.gateway.kit import Rig, read_answer
from tests.scripted_upstream import Exchange


async def request(rig: Rig, body: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(
        b"POST /v1/tiny/completions HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )
    await writer.drain()
    return reader, writer


async def sees_it_within_a_second(rig: Rig) -> None:
    async with asyncio.timeout(1):
        await rig.upstream.left.wait()
        await rig.supervisor.leases[0].left.wait()


async def test_while_the_engine_thinks(rig: Rig):
    async def script(x: Exchange) -> None:
        await x.read_body()
        thinking.set()
        await x.until_client_leaves()

    thinking = asyncio.Event()
    rig.upstream.script = script
    _, writer = await request(rig, b"{}")
    await thinking.wait()
    writer.close()
    await sees_it_within_a_second(rig)


@pytest.mark.parametrize("abort", [False, True])
async def test_while_it_streams(rig: Rig, abort: bool):
    async def script(x: Exchange) -> None:
        await x.read_body()
        await x.begin_stream()
        await x.chunk(b"data: {}\n\n")
        streaming.set()
        await x.until_client_leaves()

    streaming = asyncio.Event()
    rig.upstream.script = script
    _, writer = await request(rig, b'{"stream":true}')
    await streaming.wait()
    if abort:
        writer.transport.abort()
    else:
        writer.close()
    await sees_it_within_a_second(rig)


async def test_while_the_body_is_forwarded_to_an_engine_that_does_not_read(rig: Rig):
    async def script(x: Exchange) -> None:
        reading.set()
        await may_go_on.wait()
        await x.until_client_leaves()

    reading, may_go_on = asyncio.Event(), asyncio.Event()
    rig.upstream.script = script
    _, writer = await request(rig, b'{"x":"' + b"a" * 8_000_000 + b'"}')
    await reading.wait()
    writer.close()
    async with asyncio.timeout(1):
        await rig.supervisor.leases[0].left.wait()
    may_go_on.set()
    await sees_it_within_a_second(rig)


async def test_while_it_reads_nothing_of_a_long_stream(rig: Rig):
    async def script(x: Exchange) -> None:
        await x.read_body()
        await x.begin_stream()
        while True:
            await x.chunk(b"data: " + b"x" * 60_000 + b"\n\n")
            streaming.set()

    streaming = asyncio.Event()
    rig.upstream.script = script
    _, writer = await request(rig, b'{"stream":true}')
    await streaming.wait()
    writer.transport.abort()
    await sees_it_within_a_second(rig)


async def test_a_client_that_sends_its_body_slowly_holds_no_lease(rig: Rig):
    _, slow = await asyncio.open_connection("127.0.0.1", rig.port)
    slow.write(
        b"POST /v1/tiny/completions HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    )
    await slow.drain()
    reader, again = await request(rig, b"{}")  # a later one is served meanwhile
    async with asyncio.timeout(5):
        assert (await read_answer(reader))[0] == 200
    assert len(rig.supervisor.leases) == 1
    for each in (slow, again):
        each.close()
