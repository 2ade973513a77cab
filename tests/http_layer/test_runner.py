"""Listening, and the errors that never reach an application."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest
import uvloop
from aiohttp import web

from sparkd.errors import HostError, ModelNotFoundError
from sparkd.http import faults
from sparkd.http.runner import listen_tcp, listen_unix, make_runner


async def hello(_: web.Request) -> web.Response:
    return web.Response(text="hello")


async def fails(_: web.Request) -> web.Response:
    raise RuntimeError("the secret reason")


async def refuses(_: web.Request) -> web.Response:
    raise ModelNotFoundError("cannot find it")


async def fails_late(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    response.enable_chunked_encoding()
    await response.prepare(request)
    await response.write(b"begun")
    raise RuntimeError("too late for a status")


def make_app() -> web.Application:
    app = web.Application()
    app.router.add_get("/", hello)
    app.router.add_get("/fails", fails)
    app.router.add_get("/refuses", refuses)
    app.router.add_get("/late", fails_late)
    return app


@contextlib.asynccontextmanager
async def set_up(app: web.Application | None = None) -> AsyncIterator[web.AppRunner]:
    runner = make_runner(app or make_app(), shutdown_timeout=0.1)
    await runner.setup()
    try:
        yield runner
    finally:
        await runner.cleanup()


def names_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


async def get_unix(path: str) -> str:
    connector = aiohttp.UnixConnector(path)
    async with (
        aiohttp.ClientSession(connector=connector) as client,
        client.get("http://x/") as response,
    ):
        return await response.text()


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nope", 404, "route_not_found"),
        ("POST", "/", 405, "method_not_allowed"),
        ("GET", "/refuses", 404, "model_not_found"),
        ("GET", "/fails", 500, "internal_error"),
    ],
)
@pytest.mark.parametrize("accept", ["*/*", "text/html"])
async def test_every_error_is_an_openai_object(
    method: str, path: str, status: int, code: str, accept: str, caplog: pytest.LogCaptureFixture
):
    async with set_up() as runner, aiohttp.ClientSession() as client:
        port = await listen_tcp(runner, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{port}{path}"
        async with client.request(method, url, headers={"Accept": accept}) as response:
            assert response.status == status
            assert response.content_type == "application/json"
            text = await response.text()
            assert f'"code": "{code}"' in text
            assert "secret" not in text
    logged = "the secret reason" in caplog.text
    assert logged == (code == "internal_error"), "unexpected errors, and only they, are logged"


async def test_an_error_after_the_head_breaks_the_connection(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.ERROR)
    async with set_up() as runner, aiohttp.ClientSession() as client:
        port = await listen_tcp(runner, "127.0.0.1", 0)
        async with client.get(f"http://127.0.0.1:{port}/late") as response:
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()
    assert caplog.text.count("unexpected error") == 1


async def test_the_handler_is_cancelled_when_its_client_leaves():
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def waits(_: web.Request) -> web.Response:
        started.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cancelled.set()
        raise AssertionError("unreachable")

    app = web.Application()
    app.router.add_get("/", waits)
    async with set_up(app) as runner:
        port = await listen_tcp(runner, "127.0.0.1", 0)
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await started.wait()
        writer.close()
        async with asyncio.timeout(1):
            await cancelled.wait()


async def test_a_port_that_is_taken_is_named():
    async with set_up() as first, set_up() as second:
        port = await listen_tcp(first, "127.0.0.1", 0)
        with pytest.raises(HostError, match=f"cannot listen on 127.0.0.1:{port}: .*in use"):
            await listen_tcp(second, "127.0.0.1", port)


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
async def test_a_socket_file_has_its_mode_whatever_the_umask(tmp_path: Path, mode: int):
    path = tmp_path / "control.sock"
    before = os.umask(0o077)
    try:
        async with set_up() as runner:
            await listen_unix(runner, str(path), mode)
            assert stat.S_IMODE(path.stat().st_mode) == mode
            assert names_in(tmp_path) == ["control.sock"]
            assert await get_unix(str(path)) == "hello"
    finally:
        os.umask(before)
    assert names_in(tmp_path) == []


async def test_a_stale_socket_is_replaced(tmp_path: Path):
    path = str(tmp_path / "control.sock")
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(path)
    dead.close()
    async with set_up() as runner:
        await listen_unix(runner, path, 0o600)
        assert await get_unix(path) == "hello"


async def test_a_socket_that_somebody_listens_on_is_left_alone(tmp_path: Path):
    path = str(tmp_path / "control.sock")
    async with set_up() as first, set_up() as second:
        await listen_unix(first, path, 0o600)
        with pytest.raises(HostError, match="somebody does"):
            await listen_unix(second, path, 0o600)
        assert await get_unix(path) == "hello"


async def test_a_file_that_is_no_socket_is_never_removed(tmp_path: Path):
    path = tmp_path / "control.sock"
    path.write_text("precious")
    async with set_up() as runner:
        with pytest.raises(HostError, match="no socket"):
            await listen_unix(runner, str(path), 0o600)
    assert path.read_text() == "precious"


async def test_cleanup_does_not_remove_the_socket_of_a_successor(tmp_path: Path):
    path = tmp_path / "control.sock"
    async with set_up() as first:
        await listen_unix(first, str(path), 0o600)
        path.unlink()
        successor = socket.socket(socket.AF_UNIX)
        successor.bind(str(path))
    assert path.exists()
    successor.close()


@pytest.mark.parametrize("path", ["nowhere/control.sock", "x" * 120])
async def test_a_place_that_cannot_hold_a_socket_is_named(tmp_path: Path, path: str):
    async with set_up() as runner:
        with pytest.raises(HostError, match="cannot listen on"):
            await listen_unix(runner, str(tmp_path / path), 0o600)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_client_that_takes_nothing_is_cut_when_the_face_closes(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    with asyncio.Runner(loop_factory=new_loop) as loop:
        loop.run(_close_on_a_client_that_takes_nothing())


async def _close_on_a_client_that_takes_nothing() -> None:
    closed = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 65536)
        finally:
            closed.set()

    app = web.Application()
    app.router.add_get("/", endless)
    runner = make_runner(app, shutdown_timeout=0.1)
    await runner.setup()
    port = await listen_tcp(runner, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await reader.readline()
    server = runner.server
    assert isinstance(server, faults._Server)
    async with asyncio.timeout(5):
        await runner.cleanup()
    assert closed.is_set()
    assert not server.open_connections._transports
    writer.close()
