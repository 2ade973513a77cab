"""What a daemon costs that has nothing to do: wake-ups, CPU and memory over a minute.

    python -m tests.bench.idle [--seconds 60]

A wake-up is a voluntary context switch of any of its threads: it slept and was woken. Targets:
none without instances, at most 2 a second with two ready ones, 60 MiB.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.bench.machine import describe
from tests.bench.warm_request import fake_runtime
from tests.real.kit import Daemon, model_file, running
from tests.vllm_runtime import RUN


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    seconds = parser.parse_args().seconds
    sys.stdout.write(
        f"{describe()}\n{'':28}{'wake-ups':>10}{'per s':>8}{'CPU ms':>8}{'RSS MiB':>9}\n"
    )
    with tempfile.TemporaryDirectory(prefix="spb") as directory:
        runtimes = Path(directory)
        fake_runtime(runtimes)
        model = model_file(f"{RUN}/models/tiny-llama", runtime="fake", budget="256MiB")
        with running({"m": model, "n": model}, limit="1GiB", runtimes=runtimes) as daemon:
            _row("no instance", daemon.pid, seconds)
            asyncio.run(_load(daemon))
            _row("two ready instances", daemon.pid, seconds)
            shims = [c.pid for c in psutil.Process(daemon.pid).children()]
            _row("their shims, together", shims, seconds)


async def _load(daemon: Daemon) -> None:
    for model in ("m", "n"):
        await daemon.control("POST", f"/models/{model}/load")


def _row(name: str, pids: int | list[int], seconds: float) -> None:
    every = [pids] if isinstance(pids, int) else pids
    _until_settled(lambda: sum(map(_wake_ups, every)))
    before, cpu_before = sum(map(_wake_ups, every)), sum(map(_cpu, every))
    _sleep(seconds)
    woken, cpu = sum(map(_wake_ups, every)) - before, sum(map(_cpu, every)) - cpu_before
    memory = sum(psutil.Process(pid).memory_info().rss for pid in every) / 1024**2
    sys.stdout.write(f"{name:28}{woken:10}{woken / seconds:8.2f}{cpu * 1000:8.0f}{memory:9.1f}\n")


def _wake_ups(pid: int) -> int:
    return sum(
        int(line.split()[1])
        for status in Path(f"/proc/{pid}/task").glob("*/status")
        for line in status.read_text().splitlines()
        if line.startswith("voluntary_ctxt_switches")
    )


def _cpu(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _until_settled(count: Callable[[], int]) -> None:
    """What was asked of it just before has its own wake-ups."""
    last = -1
    while (now := count()) != last:
        last = now
        _sleep(5.0)


def _sleep(seconds: float) -> None:
    time.sleep(seconds)  # noqa: TID251  a measurement is exactly a stretch of time


if __name__ == "__main__":
    main()
