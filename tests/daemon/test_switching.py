"""Models that do not fit together, asked for in turn; and answers that outlast their keep-alive."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.daemon.clients import HELLO, together
from tests.daemon.kit import House


async def said(client: Any, model: str, *, streamed: bool, tokens: int) -> str:
    """What the official client gets."""
    more = {"fake_token_delay": 0.05}
    options = {"model": model, "messages": HELLO, "max_tokens": tokens, "extra_body": more}
    if not streamed:
        answer = await client.chat.completions.create(**options)
        return str(answer.choices[0].message.content)
    stream = await client.chat.completions.create(**options, stream=True)
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


async def test_the_official_client_switches_a_b_a_b_and_each_stop_waits_for_the_stream(
    house: House,
):
    house.configure(memory={"limit": "150MiB"})
    for name in "ab":
        house.model(name)
    daemon = await house.start()
    tokens = 12
    expected = "".join(f" t{n}" for n in range(tokens))

    async def turn(client: Any, number: int) -> list[str]:
        """Both ways at once, and in a moment when the turn before still streams."""
        model = "ab"[number % 2]
        if number:
            before = "ab"[(number - 1) % 2]
            await house.until_told(before, "request", times=2 * ((number + 1) // 2), seconds=30)
        return await together(
            said(client, model, streamed=True, tokens=tokens),
            said(client, model, streamed=False, tokens=tokens),
        )

    async with daemon.openai() as client:
        answers = await together(*(turn(client, number) for number in range(4)))
    assert answers == [[expected, expected]] * 4
    assert house.starts() == ["a", "b", "a", "b"]
    for stop in house.told(event="sigterm"):
        mine = [entry for entry in house.told(stop["model"]) if entry["pid"] == stop["pid"]]
        assert len([entry for entry in mine if entry["event"] == "finished"]) == 2
        assert all(e["at"] <= stop["at"] for e in mine if e["event"] == "finished")
    assert house.told(event="aborted") == []


async def test_a_stream_three_times_longer_than_keep_alive_is_never_cut(house: House):
    house.model("a", lifecycle={"keep_alive": "500ms"})
    daemon = await house.start()
    stream = await daemon.streamed("a", max_tokens=16, fake_token_delay=0.1)
    assert stream.complete
    await daemon.until(lambda states: not states)
    (finished,) = house.told("a", "finished")
    (stopped,) = house.told("a", "sigterm")
    assert 0.45 < stopped["at"] - finished["at"] < 1.5


@pytest.mark.parametrize("seconds", [6.0])
async def test_overlapping_workers_keep_a_model_whose_keep_alive_each_of_them_exceeds(
    house: House, seconds: float
):
    """Each worker pauses longer than the keep-alive; all together never do."""
    house.model("a", lifecycle={"keep_alive": "600ms"})
    daemon = await house.start()
    await daemon.chat("a", max_tokens=1)
    ends = asyncio.get_running_loop().time() + seconds

    async def worker(number: int) -> int:
        answered = 0
        pause = number * 0.2
        while asyncio.get_running_loop().time() + pause < ends:
            await asyncio.sleep(pause)
            reply = await daemon.chat("a", max_tokens=4 + number, fake_token_delay=0.05)
            assert reply.status == 200, reply.body
            answered += 1
            pause = 0.8
        return answered

    counts = await together(*(worker(number) for number in range(6)))
    assert min(counts) >= 3
    assert house.starts() == ["a"]
    assert await daemon.states() == {"a": "ready"}
    assert house.told("a", "sigterm") == []
