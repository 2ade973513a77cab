"""The connections to engines: pooled, patient, ended in time, and never ahead of the client."""

from __future__ import annotations

import asyncio
import socket
import tracemalloc

import aiohttp
import pytest

from sparkd.gateway.engines import Engines, Question
from sparkd.gateway.headers import to_engine
from tests.gateway.kit import FakeSupervisor, Rig, rigged
from tests.scripted_upstream import STREAM_HEAD, Exchange


async def test_connections_to_the_engine_are_reused(rig: Rig):
    for _ in range(5):
        async with rig.chat() as response:
            await response.read()
    assert rig.upstream.connections == 1


async def test_a_pooled_connection_that_the_engine_closed_is_no_failure(rig: Rig):
    async def script(x: Exchange) -> None:
        await x.read_body()
        if x.connection == 1 and len(rig.upstream.exchanges) == 2:
            x.abort()  # closed exactly when the second request came in: not one byte of an answer
            return
        await x.answer(b"{}")

    rig.upstream.script = script
    for _ in range(2):
        async with rig.chat() as response:
            assert (response.status, await response.read()) == (200, b"{}")
    assert rig.upstream.connections == 2
    assert len(rig.supervisor.leases) == 2  # one per request: the retry on the wire took none
    assert rig.supervisor.questions == 0


async def test_no_timeout_but_the_connect_one_is_set_on_the_sessions_in_use(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
):
    used: list[aiohttp.ClientSession] = []
    original = aiohttp.ClientSession._request

    async def spying(self, *args, **kwargs):
        used.append(self)
        assert "timeout" not in kwargs
        return await original(self, *args, **kwargs)

    monkeypatch.setattr(aiohttp.ClientSession, "_request", spying)
    async with rig.chat() as response:
        await response.read()
    (ours,) = [session for session in used if session is not rig.client]
    assert ours.timeout == aiohttp.ClientTimeout(
        total=None, connect=None, sock_connect=5.0, sock_read=None
    )


async def test_an_hour_of_silence_does_not_end_a_request(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    async def script(x: Exchange) -> None:
        await x.read_body()
        await asyncio.sleep(0)
        # From here on the loop's clock is an hour ahead: every timer that was set is overdue.
        monkeypatch.setattr(loop, "time", lambda: real() + 3600.0)
        loop.call_soon(lambda: None)
        done = loop.create_future()
        loop.call_later(0.05, done.set_result, None)
        await done
        await x.answer(b"{}")

    loop = asyncio.get_running_loop()
    real = loop.time
    rig.upstream.script = script
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as patient:
        rig.client, impatient = patient, rig.client
        async with rig.chat() as response:
            assert (response.status, await response.read()) == (200, b"{}")
        rig.client = impatient


async def test_sessions_end_with_their_instances(tmp_path):
    supervisor = FakeSupervisor(str(tmp_path / "s"))
    engines = Engines(lambda: ())
    async with rigged(str(tmp_path / "s")):
        for instance in ("i-1", "i-2"):
            supervisor.current = (instance, str(tmp_path / "s"))
            lease = supervisor.lease(supervisor.resolve("tiny").id)
            async with lease:
                grant = await lease.granted()
                assert grant is not None
                headers = to_engine(aiohttp.ClientRequest.DEFAULT_HEADERS, "r")  # type: ignore[arg-type]
                question = Question("/v1/completions", headers, b"{}")
                (await engines.ask(grant, question)).close()
        assert list(engines._links) == ["i-2"]
        await engines.close()
    assert engines._links == {}


async def test_a_client_that_does_not_read_costs_little_memory(rig: Rig):
    sent = 0
    chunk = b"data: " + b"x" * 65530 + b"\n\n"

    async def script(x: Exchange) -> None:
        nonlocal sent
        await x.read_body()
        await x.send(STREAM_HEAD)
        for _ in range(50_000_000 // len(chunk)):
            await x.chunk(chunk)
            sent += len(chunk)
        await x.end_stream()

    rig.upstream.script = script
    body = b'{"model":"tiny","stream":true}'
    request = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", rig.port))
    tracemalloc.start()
    try:
        await loop.sock_sendall(sock, request + body)
        stalled_at = -1
        while stalled_at != sent or not sent:
            stalled_at = sent
            await asyncio.sleep(0.2)
        assert 0 < sent < 25_000_000, "the engine was not held back"
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
        sock.close()
