"""What the daemon costs when nothing is asked of it, and what its log does not hold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemon.clients import together
from tests.daemon.kit import Daemon, House

Record = Callable[[str, object], None]
SECRET = "the swallows fly at dawn"


def wake_ups(daemon: Daemon) -> int:
    """Voluntary context switches of all threads so far: each is the end of a sleep."""
    statuses = Path(f"/proc/{daemon.process.pid}/task").glob("*/status")
    texts = [status.read_text() for status in statuses]
    return sum(int(text.partition("\nvoluntary_ctxt_switches:")[2].split()[0]) for text in texts)


def resident_mib(daemon: Daemon) -> float:
    text = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


async def wake_ups_in(daemon: Daemon, seconds: float) -> int:
    before = wake_ups(daemon)
    await asyncio.sleep(seconds)
    return wake_ups(daemon) - before


async def test_a_daemon_without_instances_sleeps_and_stays_small(
    house: House, record_property: Record
):
    for name in "abc":
        house.model(name)
    daemon = await house.start()
    await asyncio.sleep(0.5)  # the last of the start
    found = await wake_ups_in(daemon, 5)
    record_property("idle_wake_ups_in_5_s", found)
    record_property("resident_mib", resident_mib(daemon))
    assert found <= 1
    assert resident_mib(daemon) <= 60


async def test_two_ready_instances_cost_at_most_two_wake_ups_a_second(
    house: House, record_property: Record
):
    for name in "ab":
        house.model(name)
    daemon = await house.start()
    await together(daemon.chat("a"), daemon.chat("b"))
    await asyncio.sleep(1)  # the log's last lines are written
    found = await wake_ups_in(daemon, 6)
    record_property("wake_ups_in_6_s_with_two", found)
    assert found <= 12


@pytest.mark.parametrize("level", ["info", "debug"])
async def test_no_prompt_and_no_answer_reaches_the_log(house: House, level: str):
    house.configure(log={"level": level})
    house.model("a")
    daemon = await house.start()
    messages = [{"role": "user", "content": SECRET}]
    await daemon.chat("a", messages=messages, fake_tokens=7)
    await daemon.streamed("a", messages=messages)
    await daemon.chat("a", messages=SECRET, fake_crash_after_chunks=0)
    await daemon.post("/v1/chat/completions", [SECRET])
    await daemon.post(f"/v1/{SECRET}/x", {"model": SECRET})
    assert SECRET not in daemon.log
    assert " t0 t1" not in daemon.log


async def test_one_life_takes_at_most_six_lines_of_the_log(house: House):
    house.model("a", lifecycle={"keep_alive": "300ms"})
    daemon = await house.start()
    await together(*(daemon.streamed("a") for _ in range(10)))
    await daemon.until(lambda states: not states)
    lines = [line for line in daemon.log.splitlines() if "a [" in line]
    assert 3 <= len(lines) <= 6, daemon.log
