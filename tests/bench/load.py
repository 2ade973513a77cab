"""A load generator that costs little beside what it measures: raw HTTP/1.1 on kept connections."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import statistics
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

#: s. vLLM's server closes a connection that is idle for 5 s.
LONGEST_PAUSE = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where requests go, and what is sent: a unix socket's path or a port of this machine."""

    request: bytes
    path: str | None = None
    port: int = 0

    @classmethod
    def chat(cls, model: str, *, path: str | None = None, port: int = 0) -> Target:
        messages = [{"role": "user", "content": "say something"}]
        body = json.dumps({"model": model, "messages": messages, "max_tokens": 1}).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return cls(request=head.encode() + body, path=path, port=port)


class Connection(asyncio.Protocol):
    """One connection with at most one request on it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._seen = b""
        self._done: asyncio.Future[None] | None = None

    def data_received(self, data: bytes) -> None:
        self._seen += data
        end = self._seen.find(b"\r\n\r\n")
        if end < 0 or self._done is None:
            return
        _, _, rest = self._seen[:end].lower().partition(b"content-length:")
        if len(self._seen) >= end + 4 + int(rest.split(b"\r\n")[0]):
            assert self._seen.startswith(b"HTTP/1.1 200"), self._seen
            self._seen = b""
            self._done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(exc or ConnectionResetError("closed"))

    async def ask(self, request: bytes) -> float:
        """Seconds until the answer is complete."""
        if self.transport.is_closing():
            raise ConnectionResetError("closed between two requests")
        self._done = asyncio.get_running_loop().create_future()
        began = time.perf_counter()
        self.transport.write(request)
        await self._done
        return time.perf_counter() - began


@contextlib.asynccontextmanager
async def connected(target: Target) -> AsyncIterator[Connection]:
    loop = asyncio.get_running_loop()
    if target.path is not None:
        transport, connection = await loop.create_unix_connection(Connection, target.path)
    else:
        transport, connection = await loop.create_connection(Connection, "127.0.0.1", target.port)
    try:
        yield connection
    finally:
        transport.close()


async def latencies(
    target: Target, *, connections: int, seconds: float, mean_pause: float
) -> list[float]:
    """Seconds of each request. `mean_pause`: s between two on a connection, random; 0: at once."""
    until = time.perf_counter() + seconds
    taken: list[float] = []

    async def one() -> None:
        async with connected(target) as connection:
            while time.perf_counter() < until:
                if mean_pause:
                    pause = random.expovariate(1 / mean_pause)
                    await asyncio.sleep(min(pause, LONGEST_PAUSE))
                taken.append(await connection.ask(target.request))

    async with asyncio.TaskGroup() as group:
        for number in range(connections):
            group.create_task(one(), name=f"connection {number}")
    return taken


def percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
