"""kill -9 of any part at any moment: clients are told, the next is served, nothing stays."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import aiohttp
import pytest

from tests.daemon.clients import Stream, taking_at_most, together
from tests.daemon.kit import Daemon, House
from tests.host.kit import left_in_shared_memory

#: Everything that a death could leave behind.
MESSY = ("--fake-shm", "--fake-workers", "1", "--fake-detach", "1")
PARTS = ("server", "core", "shim")
TOLD_WITHIN = 2.0


async def dies(daemon: Daemon, part: str) -> None:
    """Kills one part of the instance of the model that is named after it; nothing of it stays."""
    parts = await daemon.parts(part)
    os.kill(parts.pid_of(part), signal.SIGKILL)
    await parts.until_gone(5)
    assert left_in_shared_memory([parts.core]) == []


async def is_served_again(daemon: Daemon, part: str) -> None:
    reply = await daemon.chat(part, max_tokens=2)
    assert reply.status == 200, (part, reply.body)
    assert daemon.house.starts(part) == [part, part]


async def test_a_death_while_loading_is_told_to_who_waits(house: House):
    for part in PARTS:
        house.model(part, *MESSY, start=3.0)
    daemon = await house.start()

    async def check(part: str) -> None:
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(daemon.chat(part))
            plain = group.create_task(daemon.streamed(part))
            await daemon.parts(part)
            await asyncio.sleep(0.3)  # the stream has had its first comment
            with taking_at_most(TOLD_WITHIN + 1):
                await dies(daemon, part)
                reply, stream = await waiting, await plain
        assert (reply.status, reply.error["code"]) == (503, "model_start_failed"), reply.body
        assert stream.error["code"] == "model_start_failed"
        assert stream.broken
        house.model(part, *MESSY)

    await together(*(check(part) for part in PARTS))
    assert (await daemon.control("POST", "/reload")).status == 200
    await together(*(is_served_again(daemon, part) for part in PARTS))


async def test_a_death_in_mid_stream_is_told_and_breaks_the_stream(house: House):
    for part in PARTS:
        house.model(part, *MESSY)
    daemon = await house.start()

    async def check(part: str) -> None:
        async with daemon.stream(part, max_tokens=500, fake_token_delay=0.05) as stream:
            await stream.read(4)
            with taking_at_most(TOLD_WITHIN):
                async with asyncio.TaskGroup() as group:
                    group.create_task(dies(daemon, part))
                    await stream.to_end()
        assert told_and_not_complete(part, stream), (part, stream.events[-3:], stream.broken)
        await is_served_again(daemon, part)

    await together(*(check(part) for part in PARTS))


def told_and_not_complete(part: str, stream: Stream) -> bool:
    """An error event and a break; or vLLM's own words, with the end that vLLM gives them."""
    if "EngineCore encountered" in stream.error["message"]:
        return part == "core"
    return stream.error["code"] == "upstream_unavailable" and stream.broken


async def test_a_request_without_stream_survives_the_death_of_its_engine(house: House):
    """It was not answered yet, so it is asked again."""
    for part in PARTS:
        house.model(part, *MESSY)
    daemon = await house.start()

    async def check(part: str) -> None:
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(daemon.chat(part, max_tokens=10, fake_token_delay=0.1))
            await house.until_told(part, "request")
            await dies(daemon, part)
            reply = await asked
        assert reply.content == "".join(f" t{n}" for n in range(10))
        assert house.starts(part) == [part, part]

    await together(*(check(part) for part in PARTS))


async def test_a_death_while_idle_is_noticed_and_the_next_request_served(house: House):
    for part in PARTS:
        house.model(part, *MESSY)
    daemon = await house.start()

    async def check(part: str) -> None:
        await daemon.chat(part)
        await daemon.until_ready(part)
        await dies(daemon, part)
        await is_served_again(daemon, part)

    await together(*(check(part) for part in PARTS))
    assert daemon.log.count("Lost while ready") == len(PARTS)


async def is_cut(daemon: Daemon) -> bool:
    """A stream that ends without its end, or without its beginning."""
    try:
        return (await daemon.streamed("a", fake_token_delay=0.1)).broken
    except aiohttp.ClientError:
        return True


@pytest.mark.parametrize("moment", ["loading", "streaming", "idle"])
async def test_nothing_survives_kill_9_of_the_daemon_and_the_next_one_works_at_once(
    house: House, moment: str
):
    loading = ("--fake-never-ready",) if moment == "loading" else ()
    house.model("a", *MESSY, "--fake-ignore-sigterm", *loading)
    first = await house.start()
    if moment == "idle":
        await first.chat("a")
    async with asyncio.TaskGroup() as group:
        reading = None
        if moment != "idle":
            reading = group.create_task(is_cut(first))
        parts = await first.parts("a")
        if moment == "streaming":
            await house.until_told("a", "request")
        killed = time.monotonic()
        await first.kill()
        if reading is not None:
            with taking_at_most(TOLD_WITHIN):
                assert await reading
    house.model("a", *MESSY)
    second = await house.start()
    reply = await second.chat("a")
    assert reply.status == 200, reply.body
    await parts.until_gone(5 - (time.monotonic() - killed))
    assert left_in_shared_memory([parts.core]) == []
    assert [path for path in house.instances() if path == parts.directory] == []
