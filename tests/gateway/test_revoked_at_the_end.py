"""An instance that is stopped in the very moment in which an answer has ended."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web
from aiohttp.http_writer import StreamWriter

from sparkd.core.instance import Reason
from tests.gateway.kit import Rig
from tests.scripted_upstream import Exchange


async def test_nothing_follows_the_end_of_a_stream(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    """A client that reads slowly keeps the last write waiting: the end is sent, but not taken."""
    ending = asyncio.Event()
    original_end, original_drain = web.StreamResponse.write_eof, StreamWriter.drain

    async def write_eof(self: web.StreamResponse, data: bytes = b"") -> None:
        ending.set()
        await original_end(self, data)

    async def drain(self: StreamWriter) -> None:
        if ending.is_set():
            await asyncio.Event().wait()
        await original_drain(self)

    async def script(x: Exchange) -> None:
        await x.read_body()
        await x.begin_stream()
        await x.chunk(b"data: [DONE]\n\n")
        await x.end_stream()

    monkeypatch.setattr(web.StreamResponse, "write_eof", write_eof)
    monkeypatch.setattr(StreamWriter, "drain", drain)
    rig.upstream.script = script
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(
        b"POST /v1/tiny/completions HTTP/1.1\r\nHost: localhost\r\n"
        b'Content-Type: application/json\r\nContent-Length: 15\r\n\r\n{"stream":true}'
    )
    await ending.wait()
    rig.supervisor.leases[0].revoke(Reason.SHUTDOWN)
    got = await reader.read()
    assert got.endswith(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"), got
    assert got.count(b"\r\n0\r\n") == 1
    writer.close()
