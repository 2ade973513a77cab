"""`/healthz` and the model list."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gateway.kit import Rig, error_of, rigged

TINY = {
    "id": "tiny",
    "object": "model",
    "created": 1_700_000_000,
    "owned_by": "sparkd",
    "max_model_len": 2048,
    "aliases": ["org/tiny", "Tiny-1"],
    "state": "cold",
    "role": "normal",
    "task": "generate",
    "description": "the model tiny",
}


async def test_the_list_has_every_model_cold_or_not(rig: Rig):
    async with rig.client.get(rig.url("/v1/models")) as response:
        assert response.status == 200
        got = await response.json()
    assert got["object"] == "list"
    assert got["data"][0] == TINY
    assert [(m["id"], m["task"]) for m in got["data"][1:]] == [
        ("other", "generate"),
        ("emb", "embed"),
    ]


@pytest.mark.parametrize("name", ["tiny", "Tiny-1", "org/tiny", "org%2Ftiny"])
async def test_one_model_is_found_by_any_of_its_names(rig: Rig, name: str):
    async with rig.client.get(rig.url("/v1/models/") + name) as response:
        assert await response.json() == TINY


async def test_no_path_of_this_machine_is_told(rig: Rig):
    async with rig.client.get(rig.url("/v1/models")) as response:
        assert "secret" not in await response.text()


async def test_an_unknown_model_is_a_404_with_the_nearest_name(rig: Rig):
    async with rig.client.get(rig.url("/v1/models/tinny")) as response:
        assert response.status == 404
        inner = error_of(await response.read())
    assert inner["code"] == "model_not_found"
    assert "'tiny'" in inner["message"]


async def test_healthz_says_ok(rig: Rig):
    async with rig.client.get(rig.url("/healthz")) as response:
        assert (response.status, await response.text()) == (200, "ok")


@pytest.mark.parametrize("path", ["/healthz", "/v1/models", "/v1/models/tiny"])
async def test_head_is_get_without_its_body(rig: Rig, path: str):
    async with rig.client.get(rig.url(path)) as response:
        length = response.headers["Content-Length"]
    async with rig.client.head(rig.url(path)) as response:
        assert response.status == 200
        assert response.headers["Content-Length"] == length
        assert await response.read() == b""


async def test_a_host_that_the_operator_allows_is_served(tmp_path: Path):
    async with rigged(str(tmp_path / "s"), allowed_hosts=["Spark.local"]) as rig:
        for host in ("spark.local", "SPARK.local:8009", "[::1]:8009", "localhost"):
            async with rig.client.get(rig.url("/healthz"), headers={"Host": host}) as response:
                assert response.status == 200
