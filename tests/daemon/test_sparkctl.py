"""`sparkctl` against a daemon that runs, and against none."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Any

from tests.daemon.clients import taking_at_most, together
from tests.daemon.kit import House


async def answer(house: House, *arguments: str) -> Any:
    """What a command prints as JSON; it must succeed."""
    code, out, err = await house.sparkctl(*arguments, "--json")
    assert (code, err) == (0, ""), (arguments, err)
    return json.loads(out)


async def test_a_model_is_loaded_looked_at_and_unloaded(house: House):
    house.model("a", aliases=["org/A"], description="the first")
    daemon = await house.start()
    models = (await answer(house, "models"))["models"]
    assert [(m["id"], m["state"]) for m in models] == [("a", "cold")]
    assert (await answer(house, "load", "org/A"))["state"] == "ready"
    status = await answer(house, "status")
    assert [(i["model"], i["state"]) for i in status["instances"]] == [("a", "ready")]
    assert status["pool"]["charged_bytes"] == 100 * 2**20
    assert status["pid"] == daemon.process.pid
    assert (await answer(house, "unload", "a"))["unloaded"] is True
    assert (await answer(house, "unload", "a"))["unloaded"] is False
    assert house.alive() == []
    _, out, _ = await house.sparkctl("status")
    assert "no model is loaded" in out


async def test_words_for_people_say_the_same(house: House):
    house.model("a")
    await house.start()
    outputs = [
        (await house.sparkctl(*command.split()))[:2]
        for command in ("load a", "status", "models", "reload", "unload a")
    ]
    assert [code for code, _ in outputs] == [0] * 5
    said = [out for _, out in outputs]
    assert said[0].startswith("a is ready")
    assert "ready" in said[1]
    assert "ready" in said[2]
    assert said[3] == "nothing changed\n"
    assert said[4] == "a is unloaded\n"


async def test_logs_show_what_the_engine_printed_and_follow_what_it_prints_next(house: House):
    house.model("a")
    daemon = await house.start()
    follower = await house.open_sparkctl("logs", "-f", "-n", "3", "a")
    assert follower.stdout is not None
    await daemon.chat("a")
    async with asyncio.timeout(10):
        while b"Application startup complete" not in await follower.stdout.readline():
            pass
    lines = (await answer(house, "logs", "-n", "5", "a"))["lines"]
    assert len(lines) == 5
    assert any("Application startup complete" in line for line in lines)
    follower.send_signal(signal.SIGINT)
    with taking_at_most(3):
        assert await follower.wait() == 0
    await follower.communicate()


async def test_a_follower_does_not_keep_the_daemon_from_stopping(house: House):
    house.model("a")
    daemon = await house.start()
    follower = await house.open_sparkctl("logs", "-f", "a")
    await daemon.chat("a")
    assert follower.stdout is not None
    await follower.stdout.readline()
    daemon.signal(signal.SIGTERM)
    with taking_at_most(4):
        assert await daemon.wait_exit() == 0
    await follower.communicate()


async def test_a_reload_says_what_changed(house: House):
    file = house.model("a")
    house.model("b")
    await house.start()
    file.unlink()
    house.model("b", description="other")
    house.model("c")
    changed = await answer(house, "reload")
    assert changed == {"changed": ["b"], "added": ["c"], "removed": ["a"], "warnings": []}


async def test_exit_codes_tell_what_went_wrong(house: House):
    down, _, said = await house.sparkctl("status")
    assert (down, "cannot" in said) == (3, True)
    house.model("a", weights=False)
    await house.start()
    codes = await together(
        house.sparkctl("load", "nobody"), house.sparkctl("load", "a"), house.sparkctl("dance")
    )
    assert [code for code, _, _ in codes] == [4, 1, 2]
    assert all("Traceback" not in err for _, _, err in codes)
