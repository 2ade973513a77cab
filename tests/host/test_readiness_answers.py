"""Answers that no engine should give to the probe."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sparkd.host.readiness import HttpReadiness
from sparkd.supervisor.ports import Upstream
from tests.host.kit import fake_model
from tests.scripted_upstream import Exchange, ScriptedUpstream


async def test_an_answer_that_is_no_text_is_an_answer(tmp_path: Path):
    async def script(x: Exchange) -> None:
        await x.read_body()
        await x.answer(b"\xff\xfe{", content_type="application/json; charset=utf-8")

    path = str(tmp_path / "s")
    async with ScriptedUpstream(path, script), asyncio.timeout(5):
        await HttpReadiness().wait_ready(Upstream(socket_path=path), fake_model("tiny"))
