"""Engines that do not come up or go away by themselves, and clients that do not wait."""

from __future__ import annotations

import asyncio
import time

from tests.daemon.clients import taking_at_most
from tests.daemon.kit import House


async def test_exit_status_0_while_loading_is_a_failure_with_its_cause_and_last_lines(
    house: House,
):
    text = "ValueError: To serve at least one request with the model's max seq len (65536)"
    house.model("a", "--fake-die-in-start", text, "--fake-exit-status", "0")
    daemon = await house.start()
    reply = await daemon.chat("a")
    assert (reply.status, reply.error["code"]) == (503, "model_start_failed")
    assert "exit status 0" in reply.error["message"]
    assert any(text in line for line in reply.error["log_tail"])
    assert "sparkctl logs a" in reply.error["message"]
    assert int(reply.headers["Retry-After"]) >= 1


async def test_exit_status_0_when_ready_is_a_failure_and_the_next_request_is_served(
    house: House,
):
    house.model("a", "--fake-exit-after", "0.5")
    daemon = await house.start()
    await daemon.chat("a")
    await daemon.until(lambda states: not states)
    status = (await daemon.control("GET", "/status")).json
    assert status["failures"][0]["model"] == "a"
    assert "Lost while ready" in daemon.log
    assert (await daemon.chat("a")).status == 200


async def test_after_three_failures_a_request_is_refused_at_once_and_a_load_tries_again(
    house: House,
):
    house.model("a", "--fake-die-in-start", "RuntimeError: no luck", start=0.1)
    daemon = await house.start()
    for _ in range(3):
        assert (await daemon.chat("a")).error["cause"] == "unknown"
    assert house.starts() == ["a"] * 3
    with taking_at_most(1):
        reply = await daemon.chat("a")
    assert (reply.status, reply.error["code"]) == (503, "model_start_failed")
    assert 25 <= int(reply.headers["Retry-After"]) <= 30
    assert "no luck" in reply.error["message"]
    assert len(house.starts()) == 3
    with taking_at_most(4):
        code, _, said = await house.sparkctl("load", "a")
    assert (code, len(house.starts())) == (1, 4)
    assert "no luck" in said
    house.model("a", start=0.1)
    await daemon.control("POST", "/reload", {})
    assert (await daemon.chat("a")).status == 200


async def test_a_start_that_takes_too_long_is_ended_and_told(house: House):
    house.model("a", "--fake-never-ready", lifecycle={"start_timeout": "800ms"})
    daemon = await house.start()
    with taking_at_most(4):
        reply = await daemon.chat("a")
    assert (reply.status, reply.error["code"]) == (504, "model_health_timeout")
    await house.until_empty()


async def test_a_client_that_goes_while_it_waits_leaves_the_queue(house: House):
    house.configure(memory={"limit": "100MiB"})
    house.model("busy")
    house.model("a")
    daemon = await house.start()
    async with daemon.stream("busy", max_tokens=10_000, fake_token_delay=0.05) as stream:
        await stream.read(2)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(daemon.chat("a"))
            await daemon.until_wanted("a")
            waiting.cancel()
        await daemon.until_nobody_waits(seconds=2)
    await daemon.chat("busy")
    assert house.starts() == ["busy"]


async def test_a_client_that_goes_while_it_is_answered_ends_the_generation(house: House):
    house.model("a")
    daemon = await house.start()
    async with daemon.stream("a", max_tokens=10_000, fake_token_delay=0.05) as stream:
        await stream.read(3)
    left = time.time()
    await house.until_told("a", "aborted", seconds=2)
    async with asyncio.TaskGroup() as group:
        plain = group.create_task(daemon.chat("a", max_tokens=10_000, fake_token_delay=0.05))
        await house.until_told("a", "request", times=2)
        plain.cancel()
    await house.until_told("a", "aborted", times=2, seconds=2)
    assert house.told("a", "aborted")[0]["at"] - left < 2
    status = (await daemon.control("GET", "/status")).json
    assert status["instances"][0]["in_flight"] == 0
