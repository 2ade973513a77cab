"""Readiness: `/health` alone is not enough, a refusal is an answer, and it never gives up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from sparkd.core.catalogue import Task
from sparkd.host.readiness import HttpReadiness
from sparkd.supervisor.ports import Upstream
from tests.host.kit import Bench, eventually, fake_model, journal, open_files, short_directory


@pytest.mark.parametrize("task", list(Task))
async def test_an_engine_of_each_task_becomes_ready(bench: Bench, task: Task, tmp_path: Path):
    path = tmp_path / "journal"
    await bench.ready(fake_model("tiny", "--fake-journal", str(path), task=task))
    # It writes the last of them when its answer has left already.
    await eventually(lambda: len(journal(path)) >= 4)
    events = [entry["event"] for entry in journal(path)]
    assert events == ["started", "ready", "request", "finished"]


async def test_nothing_is_ready_before_the_engine_says_so(bench: Bench):
    model = fake_model("tiny", "--fake-start-seconds", "0.5")
    engine = await bench.start(model)
    loop = asyncio.get_running_loop()
    before = loop.time()
    await HttpReadiness().wait_ready(engine.upstream, model)
    assert 0.4 < loop.time() - before < 3
    assert "Application startup complete" in bench.lines[-1]


async def test_a_cancelled_wait_leaves_no_connection(bench: Bench):
    engine = await bench.start(fake_model("tiny", "--fake-never-ready"))
    await eventually(lambda: engine._vital._watched)  # that takes a file too
    before = open_files()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await HttpReadiness().wait_ready(engine.upstream, fake_model())
    assert open_files() == before


@asynccontextmanager
async def engine_that(answers: list[int], seen: list[str]) -> AsyncIterator[Upstream]:
    """Health is fine at once; the first requests get these statuses, later ones 200."""

    async def health(_: web.Request) -> web.Response:
        return web.Response()

    async def complete(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.json_response({}, status=answers.pop(0) if answers else 200)

    app = web.Application()
    app.add_routes([web.get("/health", health), web.post("/{path:.*}", complete)])
    runner = web.AppRunner(app)
    await runner.setup()
    with short_directory() as directory:
        path = str(directory / "s")
        try:
            await web.UnixSite(runner, path).start()
            yield Upstream(socket_path=path)
        finally:
            await runner.cleanup()


async def test_a_healthy_engine_that_cannot_compute_yet_is_asked_again():
    seen: list[str] = []
    async with engine_that([500, 503], seen) as upstream:
        await HttpReadiness().wait_ready(upstream, fake_model())
    assert seen == ["/v1/completions"] * 3


async def test_a_refused_probe_is_ready_with_a_warning(caplog):
    seen: list[str] = []
    async with engine_that([404], seen) as upstream:
        await HttpReadiness().wait_ready(upstream, fake_model())
    assert "is its `task` right?" in caplog.text


async def test_an_engine_that_never_comes_is_waited_for():
    loop = asyncio.get_running_loop()
    with short_directory() as directory:
        upstream = Upstream(socket_path=str(directory / "none"))
        before = loop.time()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await HttpReadiness().wait_ready(upstream, fake_model())
        assert loop.time() - before >= 0.5


async def test_a_client_that_leaves_is_noticed_by_the_engine(bench: Bench, tmp_path: Path):
    path = tmp_path / "journal"
    model = fake_model("tiny", "--fake-journal", str(path))
    engine = await bench.ready(model)
    reader, writer = await asyncio.open_unix_connection(engine.upstream.socket_path)
    body = b'{"model": "tiny", "stream": true, "max_tokens": 3, "fake_stall_after": 1}'
    head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
    writer.write(head + body)
    await reader.readuntil(b" t0")
    writer.close()
    await writer.wait_closed()
    await eventually(lambda: journal(path)[-1]["event"] == "aborted", 2)
