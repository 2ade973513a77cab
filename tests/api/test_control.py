"""The control API's routes, bodies and errors on a real socket."""

from __future__ import annotations

import asyncio
import os

import aiohttp
import pytest
from yarl import URL

from sparkd.api.ports import LogSource, Operations, ReloadOutcome
from sparkd.core.catalogue import ModelId
from sparkd.errors import (
    ConfigError,
    NeverFitsError,
    Problem,
    ShuttingDownError,
    StartFailedError,
)
from sparkd.host.logs import LogStore
from sparkd.supervisor.owner import Supervisor


def daemon_fits(supervisor: Supervisor, logs: LogStore) -> tuple[Operations, LogSource]:
    """Never called: mypy proves here that what the daemon has is what the API needs."""
    return supervisor, logs


async def error_of(response: aiohttp.ClientResponse) -> dict[str, object]:
    error = (await response.json())["error"]
    assert {"message", "type", "param", "code"} <= set(error)
    return dict(error)


async def test_status_tells_the_daemon_the_pool_and_what_runs(client):
    async with client.get("/sparkd/v1/status") as response:
        status = await response.json()
    assert response.status == 200
    assert (status["version"], status["pid"]) == ("9.8.7", os.getpid())
    assert [i["model"] for i in status["instances"]] == ["qwen3-8b", "gemma"]
    assert [w["requests"] for w in status["waiting"]] == [2]
    assert [f["model"] for f in status["failures"]] == ["broken"]


async def test_models_lists_the_catalogue_in_its_order(client):
    async with client.get("/sparkd/v1/models") as response:
        models = (await response.json())["models"]
    assert {m["id"]: m["state"] for m in models} == {
        "qwen3-8b": "ready",
        "gemma": "starting",
        "broken": "failed",
        "cold-one": "cold",
    }


@pytest.mark.parametrize("name", ["qwen3-8b", "small", "Qwen%2FQwen3-8B"])
async def test_a_model_is_found_by_id_and_by_alias_with_a_slash(client, name):
    async with client.get(URL(f"/sparkd/v1/models/{name}", encoded=True)) as response:
        assert (await response.json())["id"] == "qwen3-8b"


async def test_an_unknown_model_is_404_and_names_the_nearest(client):
    async with client.post("/sparkd/v1/models/gema/load") as response:
        error = await error_of(response)
    assert (response.status, error["code"]) == (404, "model_not_found")
    assert "did you mean 'gemma'?" in str(error["message"])


async def test_a_load_that_waits_is_answered_when_the_model_is_ready(client, daemon):
    async with asyncio.TaskGroup() as group:
        load = group.create_task(client.post("/sparkd/v1/models/small/load", json={"wait": True}))
        await daemon.operations.asked.wait()
        assert not load.done()
        daemon.operations.finish.set()
    async with load.result() as response:
        assert (await response.json())["state"] == "ready"
    assert daemon.operations.calls == [("load", "qwen3-8b", True)]


async def test_a_load_waits_unless_told_otherwise(client, daemon):
    daemon.operations.finish.set()
    async with client.post("/sparkd/v1/models/gemma/load") as response:
        assert response.status == 200
    async with client.post("/sparkd/v1/models/gemma/load", json={"wait": False}) as response:
        assert response.status == 200
    assert daemon.operations.calls == [("load", "gemma", True), ("load", "gemma", False)]


async def test_a_client_that_goes_ends_the_waiting(client, daemon):
    async with asyncio.TaskGroup() as group:
        load = group.create_task(client.post("/sparkd/v1/models/gemma/load"))
        await daemon.operations.asked.wait()
        load.cancel()
    await daemon.operations.abandoned.wait()
    assert daemon.operations.calls == [("load", "gemma", True)]


async def test_a_failed_start_carries_its_cause_and_the_engines_last_lines(client, daemon):
    daemon.operations.failure = StartFailedError(
        "cannot start model 'gemma': no such flag", cause="bad_flag", log_tail=("a", "b")
    )
    async with client.post("/sparkd/v1/models/gemma/load") as response:
        error = await error_of(response)
    assert (response.status, error["code"]) == (503, "model_start_failed")
    assert (error["cause"], error["log_tail"]) == ("bad_flag", ["a", "b"])


@pytest.mark.parametrize(
    ("failure", "status"),
    [(NeverFitsError("cannot fit"), 503), (ShuttingDownError("cannot load: stopping"), 503)],
)
async def test_an_admission_error_keeps_its_code(client, daemon, failure, status):
    daemon.operations.failure = failure
    async with client.post("/sparkd/v1/models/gemma/load") as response:
        error = await error_of(response)
    assert (response.status, error["code"]) == (status, failure.code)


async def test_unload_passes_its_switches_on(client, daemon):
    daemon.operations.finish.set()
    body = {"now": True, "wait": True}
    async with client.post("/sparkd/v1/models/small/unload", json=body) as response:
        answer = await response.json()
    assert (answer["unloaded"], answer["model"]["state"]) == (True, "cold")
    assert daemon.operations.calls == [("unload", "qwen3-8b", True, True)]


async def test_unloading_what_is_not_loaded_is_no_error(client, daemon):
    daemon.operations.is_loaded = False
    body = {"wait": False}
    async with client.post("/sparkd/v1/models/cold-one/unload", json=body) as response:
        assert (response.status, (await response.json())["unloaded"]) == (200, False)


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"{", "invalid_json", None),
        (b"\xff\xfe\x00", "invalid_json", None),
        (b"[true]", "invalid_json", None),
        (b'{"wait": "yes"}', "invalid_request", "wait"),
        (b'{"wait": 1}', "invalid_request", "wait"),
        (b'{"now": true}', "invalid_request", "now"),
        (b"[" * 60_000, "invalid_json", None),
    ],
)
async def test_a_bad_body_is_400_and_nothing_is_loaded(client, daemon, body, code, param):
    async with client.post("/sparkd/v1/models/gemma/load", data=body) as response:
        error = await error_of(response)
    assert (response.status, error["code"], error["param"]) == (400, code, param)
    assert daemon.operations.calls == []


async def test_a_body_over_the_limit_is_413(client):
    async with client.post("/sparkd/v1/models/gemma/load", data=b" " * 70_000) as response:
        assert (response.status, (await error_of(response))["code"]) == (413, "request_too_large")


async def test_logs_are_the_last_lines_as_text(client):
    async with client.get("/sparkd/v1/models/small/logs?lines=2") as response:
        assert response.content_type == "text/plain"
        assert await response.text() == "line 4\nline 5\n"


async def test_logs_of_a_model_that_never_ran_are_empty(client, daemon):
    daemon.logs.lines = []
    async with client.get("/sparkd/v1/models/cold-one/logs") as response:
        assert (response.status, await response.text()) == (200, "")


@pytest.mark.parametrize(
    "query", ["lines=-1", "lines=many", "lines=10001", "lines=1e3", "lines=²", "follow=2"]
)
async def test_a_bad_number_is_400_and_named(client, query):
    async with client.get(f"/sparkd/v1/models/small/logs?{query}") as response:
        error = await error_of(response)
    assert (response.status, error["param"]) == (400, query.split("=")[0])


async def test_followed_logs_go_on_and_end_when_the_client_goes(client, daemon):
    async with client.get("/sparkd/v1/models/small/logs?lines=1&follow=1") as response:
        assert await response.content.readline() == b"line 5\n"
        daemon.logs.say("naïve 日本")
        assert (await response.content.readline()).decode() == "naïve 日本\n"
        response.close()
    await daemon.logs.wait_followers(0)


async def test_followed_logs_that_say_nothing_end_when_the_client_goes(client, daemon):
    daemon.logs.lines = []
    async with asyncio.TaskGroup() as group:
        request = group.create_task(client.get("/sparkd/v1/models/small/logs?follow=1"))
        await daemon.logs.wait_followers(1)
        response = await request
        response.close()
    await daemon.logs.wait_followers(0)


async def test_followed_logs_are_cut_when_the_daemon_stops(client, daemon):
    async with client.get("/sparkd/v1/models/small/logs?lines=1&follow=1") as response:
        assert await response.content.readline() == b"line 5\n"
        began = asyncio.get_running_loop().time()
        await daemon.die()
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.content.readline()
    assert daemon.logs.followers == 0
    assert asyncio.get_running_loop().time() - began < 0.9, "the stop waited for a follower"


async def test_followed_logs_have_no_gap_after_the_last_lines(client, daemon):
    """A line that is printed while the first ones are on their way comes once, and in order."""
    async with client.get("/sparkd/v1/models/small/logs?lines=5&follow=1") as response:
        for n in range(6, 200):
            daemon.logs.say(f"line {n}")
            if n % 7 == 0:
                await asyncio.sleep(0)
        seen = [await response.content.readline() for _ in range(199)]
        response.close()
    assert seen == [f"line {n}\n".encode() for n in range(1, 200)]


async def test_reload_tells_what_changed_and_what_is_questionable(client, daemon):
    daemon.configuration.outcome = ReloadOutcome(
        changed=(ModelId("gemma"),),
        added=(ModelId("new"),),
        warnings=(Problem(where="m.toml: budget", message="is large", hint="lower it"),),
    )
    async with client.post("/sparkd/v1/reload") as response:
        assert await response.json() == {
            "changed": ["gemma"],
            "added": ["new"],
            "removed": [],
            "warnings": [{"where": "m.toml: budget", "message": "is large", "hint": "lower it"}],
        }


async def test_a_reload_of_bad_files_is_400_with_all_problems(client, daemon):
    problems = [Problem(where="a.toml: x", message="unknown"), Problem(where="b", message="bad")]
    daemon.configuration.failure = ConfigError(problems)
    async with client.post("/sparkd/v1/reload") as response:
        error = await error_of(response)
    assert (response.status, error["code"]) == (400, "config_invalid")
    assert [p["where"] for p in error["problems"]] == ["a.toml: x", "b"]  # type: ignore[attr-defined]


async def test_an_unknown_route_and_method_are_the_same_error_object(client):
    async with client.get("/sparkd/v1/nothing") as response:
        assert (response.status, (await error_of(response))["code"]) == (404, "route_not_found")
    async with client.get("/sparkd/v1/reload") as response:
        assert (response.status, (await error_of(response))["code"]) == (405, "method_not_allowed")
        assert response.headers["Allow"] == "POST"
