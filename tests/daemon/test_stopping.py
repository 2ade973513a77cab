"""The end of the daemon and of a model: who is told what, and how long it may take."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket

import pytest

from tests.daemon.clients import HELLO, Stream, taking_at_most, together
from tests.daemon.kit import Daemon, House


async def test_sigterm_with_20_streams_open_takes_no_work_ends_what_can_end_and_tells_the_others(
    house: House,
):
    house.configure(server={"drain_timeout": "2s"})
    house.model("a")
    house.model("b")
    daemon = await house.start()
    await together(daemon.chat("a"), daemon.chat("b"))
    running = asyncio.Semaphore(0)

    async def stream(number: int) -> Stream:
        tokens = 15 if number % 2 else 10_000
        async with daemon.stream("ab"[number % 2], max_tokens=tokens, fake_token_delay=0.06) as one:
            await one.read(2)
            running.release()
            return await one.to_end()

    async def stop() -> None:
        for _ in range(20):
            await running.acquire()
        daemon.signal(signal.SIGTERM)
        await daemon.until(lambda states: set(states.values()) == {"draining"})
        for model in "ab":
            reply = await daemon.chat(model)
            assert (reply.status, reply.error["code"]) == (503, "shutting_down")
        with taking_at_most(4):
            assert await daemon.wait_exit() == 0

    async with asyncio.TaskGroup() as group:
        streams = [group.create_task(stream(number)) for number in range(20)]
        group.create_task(stop())
    done = [task.result() for task in streams]
    assert all(one.complete for one in done[1::2])
    assert all(one.broken and one.error["code"] == "shutting_down" for one in done[::2])
    assert house.alive() == []
    assert house.instances() == []
    assert not house.control_socket.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_hurries_the_end(house: House, number: signal.Signals):
    house.configure(server={"drain_timeout": "1h"})
    house.model("a")
    daemon = await house.start()
    async with daemon.stream("a", max_tokens=10_000, fake_token_delay=0.05) as stream:
        await stream.read(2)
        daemon.signal(number)
        await daemon.until(lambda states: states.get("a") == "draining")
        await stream.read(2)
        daemon.signal(number)
        with taking_at_most(3):
            await stream.to_end()
            assert await daemon.wait_exit() == 0
    assert stream.error["code"] == "shutting_down"


async def test_a_second_signal_does_not_wait_for_engines_that_ignore_theirs(house: House):
    house.model("loading", "--fake-never-ready", "--fake-swallow-sigterm")
    house.model("ready", "--fake-ignore-sigterm")
    daemon = await house.start()
    await daemon.chat("ready")
    async with asyncio.TaskGroup() as group:
        group.create_task(daemon.chat("loading"))
        await daemon.parts("loading")
        daemon.signal(signal.SIGTERM)
        await daemon.until(lambda states: set(states.values()) == {"stopping"})
        daemon.signal(signal.SIGTERM)
        with taking_at_most(3):
            assert await daemon.wait_exit(30) == 0
    assert house.alive() == []


async def test_a_signal_while_a_model_loads_tells_those_who_wait_and_ends_it(house: House):
    house.model("a", "--fake-never-ready")
    daemon = await house.start()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(daemon.chat("a"))
        await daemon.parts("a")
        daemon.signal(signal.SIGTERM)
        with taking_at_most(3):
            assert await daemon.wait_exit() == 0
    assert (waiting.result().status, waiting.result().error["code"]) == (503, "shutting_down")


async def test_clients_that_read_nothing_do_not_keep_the_daemon_from_stopping(house: House):
    house.configure(server={"drain_timeout": "500ms"})
    house.model("a")
    daemon = await house.start()
    asked = {"model": "a", "messages": HELLO, "stream": True, "max_tokens": 1_000_000}
    body = json.dumps(asked).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    )
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port)))
            client.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
        await house.until_told("a", "request", times=3)
        daemon.signal(signal.SIGTERM)
        with taking_at_most(6):
            assert await daemon.wait_exit() == 0


async def test_a_signal_before_anything_was_asked_for_ends_it_at_once(house: House):
    daemon = await house.start()
    daemon.signal(signal.SIGINT)
    with taking_at_most(2):
        assert await daemon.wait_exit() == 0


async def test_an_unload_while_the_engine_swallows_sigterm_returns_within_10_seconds(house: House):
    house.model("a", "--fake-never-ready", "--fake-swallow-sigterm")
    daemon = await house.start()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(daemon.chat("a"))
        parts = await daemon.parts("a")
        with taking_at_most(10):
            reply = await daemon.control("POST", "/models/a/unload", {})
        assert reply.json["unloaded"]
    assert parts.alive() == []
    assert not parts.directory.exists()
    assert waiting.result().error["code"] == "model_unloaded"


async def test_an_unload_waits_for_answers_and_one_that_shall_not_cuts_them(house: House):
    house.model("a")
    daemon = await house.start()

    async def unload(daemon: Daemon, *, now: bool) -> Stream:
        async with daemon.stream("a", max_tokens=16, fake_token_delay=0.05) as stream:
            await stream.read(2)
            async with asyncio.TaskGroup() as group:
                asked = {"now": now}
                unloading = group.create_task(daemon.control("POST", "/models/a/unload", asked))
                await stream.to_end()
            assert unloading.result().json["unloaded"]
            return stream

    assert (await unload(daemon, now=False)).complete
    cut = await unload(daemon, now=True)
    assert cut.broken
    assert cut.error["code"] == "model_unloaded"
