"""An HTTP server on a unix socket that does exactly what a test scripts, byte by byte.

It records what it received and when its client left. Must not be polite on its own: no header, no
framing and no close that the script did not write.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self


@dataclass(slots=True)
class Exchange:
    """One request on one connection, and the script's side of the conversation."""

    connection: int  # 1 for the first
    head: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    body: bytes = b""

    @property
    def request_line(self) -> str:
        return self.head.split(b"\r\n", 1)[0].decode()

    @property
    def headers(self) -> dict[str, str]:
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        pairs = (line.split(":", 1) for line in lines if line)
        return {name.lower(): value.strip() for name, value in pairs}

    async def read_body(self) -> bytes:
        """By Content-Length; the gateway must never send anything else."""
        self.body = await self.reader.readexactly(int(self.headers.get("content-length", 0)))
        return self.body

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(
        self, body: bytes, status: str = "200 OK", content_type: str = "application/json"
    ) -> None:
        """A complete answer, as uvicorn writes it."""
        await self.send(
            f"HTTP/1.1 {status}\r\ndate: x\r\nserver: uvicorn\r\ncontent-type: {content_type}\r\n"
            f"content-length: {len(body)}\r\n\r\n".encode()
            + body
        )

    async def begin_stream(self) -> None:
        await self.send(STREAM_HEAD)

    async def chunk(self, data: bytes) -> None:
        await self.send(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    async def end_stream(self) -> None:
        await self.send(b"0\r\n\r\n")

    async def until_client_leaves(self) -> None:
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass

    def close(self) -> None:
        self.writer.close()

    def abort(self) -> None:
        self.writer.transport.abort()


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ndate: x\r\nserver: uvicorn\r\n"
    b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)

Script = Callable[[Exchange], Awaitable[None]]


async def echo(exchange: Exchange) -> None:
    """Answers with the body it got."""
    await exchange.answer(await exchange.read_body())


@dataclass(slots=True)
class ScriptedUpstream:
    """The server; `script` runs once per request and may be exchanged between requests."""

    path: str
    script: Script = echo
    exchanges: list[Exchange] = field(default_factory=list)
    connections: int = 0
    left_at: list[float] = field(default_factory=list)  # loop time at which a client closed
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._serve, self.path, limit=1 << 20)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """As a killed engine: no listener, every connection cut."""
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    @property
    def last(self) -> Exchange:
        return self.exchanges[-1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            await self._converse(self.connections, reader, writer)
        except (asyncio.CancelledError, ConnectionError, asyncio.IncompleteReadError):
            pass  # cancelled by stop(), or the client left in the middle: both are scripted
        finally:
            self._tasks.discard(task)
            self.left_at.append(asyncio.get_running_loop().time())
            self.left.set()
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    async def _converse(
        self, connection: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while not writer.is_closing():
            head = await reader.readuntil(b"\r\n\r\n")
            exchange = Exchange(connection, head[:-4], reader, writer)
            self.exchanges.append(exchange)
            self.arrived.set()
            await self.script(exchange)
