"""The fake engine keeps what it promises: other tests lean on it, and on its likeness to vLLM."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
import pytest

from sparkd.core.classify import classify
from sparkd.core.failure import FailureCause
from sparkd.core.quantities import Seconds
from sparkd.host.readiness import HttpReadiness
from sparkd.supervisor.ports import EngineExit
from tests.host.kit import FAKE, Bench, fake_model, journal, short_directory, titled

CHAT = "/v1/chat/completions"


def session(engine) -> aiohttp.ClientSession:
    connector = aiohttp.UnixConnector(path=engine.upstream.socket_path, limit=0)
    return aiohttp.ClientSession("http://engine", connector=connector)


def ask(**more: object) -> dict[str, object]:
    return {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], **more}


def run_fake(directory: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FAKE), "serve", *args]
    env = {**os.environ, "TMPDIR": str(directory)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=20)


@pytest.mark.parametrize(
    ("args", "status", "cause"),
    [
        (("m", "--enforce-eger"), 2, FailureCause.BAD_FLAG),
        (("/nowhere/m",), 1, FailureCause.MISSING_WEIGHTS),
        (
            ("m", "--fake-die-in-start", "torch.OutOfMemoryError: CUDA out of memory."),
            1,
            FailureCause.OUT_OF_MEMORY,
        ),
    ],
)
def test_starts_fail_as_vllms_do(args: tuple[str, ...], status: int, cause: FailureCause):
    with short_directory() as directory:
        done = run_fake(directory, *args, "--uds", str(directory / "s"))
    ended = EngineExit(exit_status=done.returncode)
    assert done.returncode == status
    assert classify(ended, tuple(done.stderr.splitlines()), False).cause is cause


def test_a_stale_socket_refuses_the_start_as_vllms_does():
    with short_directory() as directory:
        (directory / "s").write_text("stale")
        done = run_fake(directory, "m", "--uds", str(directory / "s"))
    assert done.returncode == 1
    assert done.stderr.strip().endswith("OSError: [Errno 98] Address already in use")


async def test_it_is_ready_at_once(bench: Bench):
    times = []
    for number in range(3):
        before = time.monotonic()
        await bench.ready(fake_model(f"m{number}"))
        times.append(time.monotonic() - before)
    # The shim, two Pythons, EngineCore and one polling interval of the readiness check.
    assert min(times) < 0.6


async def test_a_hundred_streams_at_once(bench: Bench):
    engine = await bench.ready()

    async def stream(client: aiohttp.ClientSession) -> bytes:
        body = ask(stream=True, max_tokens=20, fake_token_delay=0.01)
        async with client.post(CHAT, json=body) as answer:
            return await answer.read()

    async with session(engine) as client, asyncio.TaskGroup() as tasks:
        streams = [tasks.create_task(stream(client), name=f"stream {n}") for n in range(100)]
    for done in streams:
        assert done.result().count(b"data: ") == 22  # the role, 20 tokens, [DONE]


async def test_the_stream_and_the_whole_answer_say_the_same(bench: Bench):
    engine = await bench.ready()
    async with session(engine) as client:
        async with client.post(CHAT, json=ask(max_tokens=3)) as answer:
            whole = await answer.json()
        usage = {"include_usage": True}
        body = ask(max_tokens=3, stream=True, stream_options=usage)
        async with client.post(CHAT, json=body) as answer:
            events = (await answer.read()).decode().strip().split("\n\n")
        async with client.post(CHAT, json=ask(model="nope")) as answer:
            refused = (answer.status, (await answer.json())["error"]["type"])
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
    text = "".join(c["choices"][0]["delta"]["content"] for c in chunks if c["choices"])
    assert text == whole["choices"][0]["message"]["content"] == " t0 t1 t2"
    assert chunks[-1]["usage"] == whole["usage"]
    assert events[-1] == "data: [DONE]"
    assert refused == (404, "NotFoundError")


@pytest.mark.parametrize(("stream", "after"), [(True, 250), (True, 0), (False, 40)])
async def test_it_crashes_at_the_chosen_byte(bench: Bench, stream: bool, after: int):
    engine = await bench.ready()
    got = b""
    async with session(engine) as client:
        body = ask(stream=stream, max_tokens=50, fake_crash_after_bytes=after)
        async with client.post(CHAT, json=body) as answer:
            broken = False
            while not broken:
                try:
                    got += await answer.content.readany()
                except aiohttp.ClientPayloadError:
                    broken = True
    assert len(got) == after
    assert (await engine.wait_lost()).signal == signal.SIGKILL


async def test_a_dead_engine_core_is_told_in_the_stream_then_it_exits_0(bench: Bench):
    model = fake_model("tiny", "--fake-token-delay", "0.02")
    engine = await bench.start(model)
    await HttpReadiness().wait_ready(engine.upstream, model)  # not watched: as vLLM alone
    (core,) = titled(bench.run_dir, "VLLM::EngineCore")
    async with session(engine) as client:
        async with client.post(CHAT, json=ask(stream=True, max_tokens=500)) as answer:
            await answer.content.readuntil(b" t1")
            os.kill(core, signal.SIGKILL)
            killed = time.monotonic()
            rest = (await answer.read()).decode().split("\n\n")
        async with client.get("/health") as answer:
            assert answer.status == 503
        async with client.post(CHAT, json=ask()) as answer:
            assert answer.status == 500
            assert "EngineCore encountered an issue" in await answer.text()
    assert json.loads(rest[-3].removeprefix("data: "))["error"]["code"] == 500
    assert rest[-2] == "data: [DONE]"
    assert (await engine.wait_lost()).exit_status == 0
    assert 1.0 < time.monotonic() - killed < 2.5


async def test_the_journal_tells_what_happened(bench: Bench, tmp_path: Path):
    path = tmp_path / "journal"
    engine = await bench.ready(fake_model("tiny", "--fake-journal", str(path)))
    async with session(engine) as client, client.post(CHAT, json=ask()) as answer:
        await answer.read()
    engine.stop(Seconds(5))
    await engine.wait_gone()
    events = [entry["event"] for entry in journal(path)]
    assert events == [
        *("started", "ready"), *("request", "finished") * 2, "sigterm", "exit",
    ]  # fmt: skip


async def test_it_claims_memory(bench: Bench):
    await bench.ready(fake_model("tiny", "--fake-memory", str(64 << 20)))
    (core,) = titled(bench.run_dir, "VLLM::EngineCore")
    status = Path(f"/proc/{core}/status").read_text()  # noqa: ASYNC240
    rss = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    assert int(rss.split()[1]) > 64 * 1024
