"""What a client sends cannot write lines of its own into the daemon's log."""

from __future__ import annotations

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from sparkd.http.runner import listen_tcp, make_runner


async def fails(_: web.Request) -> web.Response:
    raise RuntimeError("a fault")


async def test_a_line_break_in_a_path_does_not_break_the_log_line(
    caplog: pytest.LogCaptureFixture,
):
    app = web.Application()
    app.router.add_get("/{id}", fails)
    runner = make_runner(app)
    await runner.setup()
    try:
        port = await listen_tcp(runner, "127.0.0.1", 0)
        url = URL(f"http://127.0.0.1:{port}/a%0a12:00:00%20ERROR%20forged", encoded=True)
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            assert response.status == 500
    finally:
        await runner.cleanup()
    (record,) = [r for r in caplog.records if r.name == "sparkd.http.faults"]
    assert "forged" in record.getMessage()
    assert "\n" not in record.getMessage()
