"""Many requests at once for models that are cold: who is started, how often, and in which order."""

from __future__ import annotations

import statistics

from tests.daemon.clients import Reply, together
from tests.daemon.kit import House


async def test_50_requests_at_once_for_a_cold_model_start_it_once_and_are_all_answered(
    house: House,
):
    house.model("a")
    daemon = await house.start()
    replies = await together(*(daemon.chat("a", max_tokens=2) for _ in range(50)))
    assert [reply.content for reply in replies] == [" t0 t1"] * 50
    assert house.starts() == ["a"]
    assert len(house.told("a", "finished")) == 50


async def test_20_requests_for_3_models_of_which_2_fit_start_each_once_in_the_order_of_arrival(
    house: House,
):
    house.configure(memory={"limit": "200MiB"})
    for name in "abc":
        house.model(name)
    daemon = await house.start()

    async def one(n: int) -> Reply:
        # Connections of one client may be accepted in any order: the first three come in turn.
        await daemon.until_wanted(*"abc"[: min(n, 3)])
        return await daemon.chat("abc"[n % 3], max_tokens=2)

    replies = await together(*(one(n) for n in range(20)))
    assert [reply.status for reply in replies] == [200] * 20
    assert sorted(house.starts()[:2]) == ["a", "b"]
    assert house.starts()[2:] == ["c"]  # it came last, and had to wait for room
    left = min(entry["at"] for entry in house.told(event="exit"))
    assert house.told("c", "started")[0]["at"] > left


async def test_two_cold_models_that_fit_together_start_beside_each_other(house: House):
    for name in "ab":
        house.model(name, start=0.6)
    daemon = await house.start()
    replies = await together(daemon.chat("a"), daemon.chat("b"))
    assert [reply.status for reply in replies] == [200, 200]
    started = [entry["at"] for entry in house.told(event="started")]
    ready = [entry["at"] for entry in house.told(event="ready")]
    assert max(started) < min(ready)


async def test_two_cold_models_that_do_not_fit_together_are_both_served_without_a_pause(
    house: House,
):
    house.configure(memory={"limit": "150MiB"})
    for name in "ab":
        house.model(name)
    daemon = await house.start()
    replies = await together(daemon.chat("a"), daemon.chat("b"))
    assert [reply.status for reply in replies] == [200, 200]
    first, second = house.starts()
    exit_ = house.told(first, "exit")[0]["at"]
    assert 0 < house.told(second, "started")[0]["at"] - exit_ < 1
    assert exit_ - house.told(first, "finished")[0]["at"] < 1


async def test_a_warm_request_never_waits_behind_a_cold_start(house: House):
    house.model("warm")
    house.model("cold", start=2.5)
    daemon = await house.start()
    await daemon.chat("warm")

    async def warm_requests() -> list[float]:
        await daemon.until(lambda states: states.get("cold") == "starting")
        replies = [await daemon.chat("warm", max_tokens=1) for _ in range(20)]
        assert (await daemon.states())["cold"] == "starting"
        return [reply.seconds for reply in replies]

    async def cold_request() -> list[float]:
        return [(await daemon.chat("cold")).seconds]

    warm, cold = await together(warm_requests(), cold_request())
    assert cold[0] > 2.4
    assert statistics.median(warm) < 0.1
    assert max(warm) < 1


async def test_a_low_soft_limit_of_open_files_refuses_nobody(house: House):
    house.model("a")
    daemon = await house.start(soft_limit=64)
    replies = await together(*(daemon.chat("a", max_tokens=1) for _ in range(100)))
    assert [reply.status for reply in replies] == [200] * 100
