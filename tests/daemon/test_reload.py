"""The configuration read again while models answer: what changed restarts, nothing else does."""

from __future__ import annotations

import asyncio
import signal

import pytest

from tests.daemon.kit import Daemon, House
from tests.host.kit import eventually


async def reload(daemon: Daemon, how: str) -> None:
    """Returns when it took effect, or was refused."""
    if how == "control":
        await daemon.control("POST", "/reload", {})
        return
    log = daemon.log
    daemon.signal(signal.SIGHUP)
    new = ("Configuration replaced", "cannot use the configuration")
    await eventually(lambda: any(word in daemon.log[len(log) :] for word in new))


@pytest.mark.parametrize("how", ["SIGHUP", "control"])
async def test_a_changed_model_restarts_after_its_stream_and_an_unchanged_one_stays(
    house: House, how: str
):
    house.model("changed")
    house.model("same")
    daemon = await house.start()
    await daemon.chat("same")
    async with daemon.stream("changed", max_tokens=20, fake_token_delay=0.05) as stream:
        await stream.read(3)
        house.model("changed", "--fake-tokens", "3")
        await reload(daemon, how)
        assert await daemon.states() == {"changed": "draining", "same": "ready"}
        async with asyncio.TaskGroup() as group:
            next_one = group.create_task(daemon.chat("changed"))
            await stream.to_end()
    assert stream.complete
    assert next_one.result().content == " t0 t1 t2"
    assert sorted(house.starts()) == ["changed", "changed", "same"]
    (finished, *_) = house.told("changed", "finished")
    assert finished["at"] <= house.told("changed", "sigterm")[0]["at"]


@pytest.mark.parametrize("how", ["SIGHUP", "control"])
async def test_a_broken_configuration_changes_nothing_and_all_its_mistakes_are_told(
    house: House, how: str
):
    house.model("a")
    daemon = await house.start()
    await daemon.chat("a")
    house.model("a", aliases=["b"])
    house.model("b", task="dance")
    house.model("c", memory={"budget": "1GB"}, keepalive="1s")
    if how == "control":
        reply = await daemon.control("POST", "/reload", {})
        assert (reply.status, reply.error["code"]) == (400, "config_invalid")
        told = reply.body.decode()
        assert len(reply.error["problems"]) >= 4
    else:
        await reload(daemon, how)
        told = daemon.log
    for word in ("dance", "1GB", "keepalive", "a.toml", "b.toml", "c.toml"):
        assert word in told
    assert [m["id"] for m in (await daemon.get("/v1/models")).json["data"]] == ["a"]
    assert (await daemon.chat("a")).status == 200
    assert house.starts() == ["a"]


async def test_a_removed_model_ends_its_answers_and_is_unknown_then(house: House):
    file = house.model("a")
    house.model("b")
    daemon = await house.start()
    async with daemon.stream("a", max_tokens=20, fake_token_delay=0.05) as stream:
        await stream.read(2)
        file.unlink()
        reply = await daemon.control("POST", "/reload", {})
        assert reply.json["removed"] == ["a"]
        reply = await daemon.chat("a")
        assert (reply.status, reply.error["code"]) == (404, "model_not_found")
        await stream.to_end()
    assert stream.complete
    await daemon.until(lambda states: not states)


async def test_an_alias_and_a_model_can_be_added(house: House):
    house.model("a")
    daemon = await house.start()
    assert (await daemon.chat("org/A")).status == 404
    house.model("a", aliases=["org/A"])
    house.model("b")
    reply = await daemon.control("POST", "/reload", {})
    assert reply.json["changed"] == ["a"]
    assert reply.json["added"] == ["b"]
    answer = await daemon.chat("org/A", max_tokens=1)
    assert answer.content == " t0"
    assert (await daemon.chat("b")).status == 200


async def test_a_lifecycle_applies_at_once_and_restarts_nothing(house: House):
    house.model("a")
    daemon = await house.start()
    await daemon.chat("a")
    house.model("a", lifecycle={"keep_alive": "300ms"})
    await reload(daemon, "control")
    await daemon.until(lambda states: not states)
    assert house.starts() == ["a"]


async def test_what_takes_effect_at_the_next_start_only_is_said(house: House):
    daemon = await house.start()
    house.configure(log={"level": "debug"}, server={"drain_timeout": "7s"})
    reply = await daemon.control("POST", "/reload", {})
    said = {warning["where"] for warning in reply.json["warnings"]}
    assert said == {"server", "log"}
    assert all("restarted" in warning["message"] for warning in reply.json["warnings"])
