"""The gateway on uvloop, which production uses where it is installed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.gateway import test_client_gone, test_engine_death
from tests.gateway.kit import Rig, rigged
from tests.scripted_upstream import Exchange

uvloop = pytest.importorskip("uvloop", reason="the `fast` extra is not installed")


async def answers_and_streams_pass(rig: Rig) -> None:
    async def script(x: Exchange) -> None:
        await x.read_body()
        await x.begin_stream()
        await x.chunk(b"data: [DONE]\n\n")
        await x.end_stream()

    assert type(asyncio.get_running_loop()).__module__.startswith("uvloop")
    async with rig.chat() as response:
        assert response.status == 200
    rig.upstream.script = script
    async with rig.chat(stream=True) as response:
        assert await response.read() == b"data: [DONE]\n\n"


async def a_client_that_leaves_is_noticed(rig: Rig) -> None:
    await test_client_gone.test_while_it_streams(rig, abort=False)


async def a_client_that_leaves_while_the_engine_thinks_is_noticed(rig: Rig) -> None:
    await test_client_gone.test_while_the_engine_thinks(rig)


async def a_broken_stream_is_broken(rig: Rig) -> None:
    await test_engine_death.test_death_in_mid_stream_is_an_error_event_and_a_broken_connection(
        rig, b'data: {"a":1}\n\n', half_chunk=False
    )


async def an_http10_client_sees_a_reset(rig: Rig) -> None:
    await test_engine_death.test_an_http10_client_sees_a_reset_not_an_end(rig)


@pytest.mark.parametrize(
    "check",
    [
        answers_and_streams_pass,
        a_client_that_leaves_is_noticed,
        a_client_that_leaves_while_the_engine_thinks_is_noticed,
        a_broken_stream_is_broken,
        an_http10_client_sees_a_reset,
    ],
)
def test_on_uvloop(check: Callable[[Rig], Awaitable[None]], tmp_path: Path):
    async def run() -> None:
        async with rigged(str(tmp_path / "engine.sock")) as rig:
            await check(rig)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
