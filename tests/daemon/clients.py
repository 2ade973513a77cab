"""What clients get from a daemon, and how many of them ask at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp

HELLO = [{"role": "user", "content": "hello"}]
T = TypeVar("T")


async def together(*calls: Coroutine[Any, Any, T]) -> list[T]:
    """The results of calls that run at the same time."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(call) for call in calls]
    return [task.result() for task in tasks]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = self.json["error"]
        return found

    @property
    def content(self) -> str:
        assert self.status == 200, self.body
        return str(self.json["choices"][0]["message"]["content"])


class Stream:
    """An answer that comes in events. `broken`: the connection ended before the answer did."""

    def __init__(self, response: aiohttp.ClientResponse):
        self.status, self.headers = response.status, response.headers
        self.events: list[str] = []
        self.comments: list[str] = []
        self.broken = False
        self.ended = False
        self._content = response.content

    async def next(self) -> str | None:
        """The next event's data; None at the end."""
        while not self.ended:
            try:
                block = (await self._content.readuntil(b"\n\n")).decode().strip("\n")
            except (aiohttp.ClientError, ConnectionError):
                self.broken = self.ended = True
                return None
            if not block:
                self.ended = True
            elif block.startswith(":"):
                self.comments.append(block)
            else:
                self.events.append(block.removeprefix("data: "))
                return self.events[-1]
        return None

    async def read(self, events: int) -> None:
        for _ in range(events):
            assert await self.next() is not None, self.events

    async def to_end(self) -> Stream:
        while await self.next() is not None:
            pass
        return self

    @property
    def complete(self) -> bool:
        return self.ended and not self.broken and self.events[-1:] == ["[DONE]"]

    @property
    def error(self) -> dict[str, Any]:
        """The error that the stream told; fails when it told none."""
        told = [event for event in self.events if event.startswith('{"error"')]
        assert told, (self.status, self.events[-3:], self.broken)
        found: dict[str, Any] = json.loads(told[-1])["error"]
        return found


async def asked_of(
    request: AbstractAsyncContextManager[aiohttp.ClientResponse],
) -> Reply:
    began = time.monotonic()
    async with request as response:
        return Reply(
            status=response.status,
            headers=response.headers,
            body=await response.read(),
            seconds=time.monotonic() - began,
        )


@contextlib.contextmanager
def taking_at_most(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    assert took <= seconds, f"took {took:.2f} s, {seconds} s are allowed"
