"""What sparkd adds to a request for a ready model: through it against straight to the engine.

    python -m tests.bench.warm_request [--real]

Interleaved, so that a busy machine disturbs both alike; `least` is the round it
disturbed least. `--real` also asks a real tiny vLLM.
Target: at most 1 ms more at the median, 16 connections, arrivals at random.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from pathlib import Path

from tests.bench.load import Target, latencies, percentile
from tests.bench.machine import describe
from tests.real.kit import Daemon, model_file, running
from tests.vllm_runtime import RUN

CONNECTIONS, ROUNDS, SECONDS = 16, 7, 2.0
#: Requests a second over all connections; a tiny vLLM on two cores serves some 40 one by one.
FAKE_RATES, REAL_RATES = (100.0, 500.0), (15.0,)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", action="store_true", help="also with a real tiny vLLM")
    real = parser.parse_args().real
    sys.stdout.write(
        f"{describe()}\n{CONNECTIONS} connections, {ROUNDS} × {SECONDS:g} s each way\n"
    )
    sys.stdout.write(_HEAD)
    with tempfile.TemporaryDirectory(prefix="spb") as directory:
        runtimes = Path(directory)
        fake_runtime(runtimes)
        fake = model_file(f"{RUN}/models/tiny-llama", runtime="fake", budget="256MiB")
        with running({"m": fake}, limit="1GiB", runtimes=runtimes) as daemon:
            asyncio.run(_table(daemon, "fake engine", FAKE_RATES))
    if real:
        model = model_file(f"{RUN}/models/tiny-llama")
        with running({"m": model}, limit="2GiB", runtimes=RUN / "runtimes") as daemon:
            asyncio.run(_table(daemon, "real vLLM", REAL_RATES))


def fake_runtime(runtimes: Path) -> None:
    """Writes a runtime whose engine is `upstream.py`."""
    upstream = Path(__file__).with_name("upstream.py")
    (runtimes / "fake").mkdir()
    (runtimes / "fake" / "runtime.toml").write_text(
        f'name = "fake"\nkind = "venv"\ndevice = "cpu"\n'
        f'command = ["{sys.executable}", "{upstream}", "serve"]\n'
    )


_HEAD = f"{'':34}{'straight':>20}{'through':>20}{'added p50 ms':>18}{'ratio':>7}\n" + (
    f"{'':34}{'p50 ms':>10}{'p99 ms':>10}{'p50 ms':>10}{'p99 ms':>10}{'median':>9}{'least':>9}\n"
)


async def _table(daemon: Daemon, engine: str, rates: tuple[float, ...]) -> None:
    await daemon.control("POST", "/models/m/load")
    socket = (await daemon.trace("m")).socket
    straight = Target.chat("m", path=socket)
    through = Target.chat("m", port=daemon.port)
    spaced = [(f"spaced, {rate:g}/s", CONNECTIONS / rate) for rate in rates]
    for name, pause in (*spaced, ("closed loop", 0.0)):
        row = await _compare(straight, through, pause)
        sys.stdout.write(f"{engine + ', ' + name:34}{row}\n")


async def _compare(straight: Target, through: Target, pause: float) -> str:
    pairs: list[tuple[list[float], list[float]]] = []
    for _ in range(ROUNDS):
        first, second = [
            await latencies(t, connections=CONNECTIONS, seconds=SECONDS, mean_pause=pause)
            for t in (straight, through)
        ]
        pairs.append((first, second))
    cells = [
        statistics.median(percentile(pair[way], percent) for pair in pairs) * 1000
        for way in (0, 1)
        for percent in (50, 99)
    ]
    added = [(percentile(b, 50) - percentile(a, 50)) * 1000 for a, b in pairs]
    row = "".join(f"{c:10.2f}" for c in cells)
    return f"{row}{statistics.median(added):9.2f}{min(added):9.2f}{cells[2] / cells[0]:7.2f}"


if __name__ == "__main__":
    main()
