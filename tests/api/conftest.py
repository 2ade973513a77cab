"""A served control API and a client for it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.api.fakes import FakeDaemon


@pytest.fixture
async def daemon() -> AsyncIterator[FakeDaemon]:
    fake = FakeDaemon()
    async with fake.served():
        yield fake


@pytest.fixture
async def client(daemon: FakeDaemon) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.UnixConnector(daemon.path)
    async with aiohttp.ClientSession("http://sparkd", connector=connector) as session:
        yield session
