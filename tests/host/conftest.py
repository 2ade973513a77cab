"""Fixtures of the tests of `sparkd.host`: a launcher, on each event loop the daemon may run on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import uvloop
from blockbuster import BlockBuster, blockbuster_ctx

from tests.host.kit import Bench, processes_bench

#: One entry per launcher: the same promises, kept by other means.
LAUNCHERS = {"processes": processes_bench}
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
def nothing_blocks_the_loop() -> Iterator[BlockBuster]:
    with blockbuster_ctx("sparkd") as watch:
        yield watch


@pytest.fixture(params=LAUNCHERS)
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    async with LAUNCHERS[request.param]() as made:
        yield made


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item):
    """The contract of the launchers holds on both loops; the rest does not depend on it."""
    del config
    return LOOPS if "test_launchers" in item.nodeid else {"asyncio": asyncio.new_event_loop}
