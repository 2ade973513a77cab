"""`make run` with everything real: the runtime, the models, the daemon, the answer, the end."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from sparkd.core.catalogue import Runtime
from sparkd.provision.tiny_models import TinyKind
from tests.provision.test_quickstart import QUICKSTART, environment
from tests.provision.waiting import wait_until
from tests.vllm_runtime import CLONE, RUN

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(240)]

#: The promise for a second `make run`, in seconds.
LISTENING = 3.0


@pytest.fixture
def run_dir(
    tmp_path: Path, runtime: Runtime, tiny_models: Mapping[TinyKind, Path]
) -> Iterator[Path]:
    """As a finished first run leaves it: the runtime and the models are there."""
    directory = tmp_path / "run"
    directory.mkdir()
    for name in ("runtimes", "models"):
        (directory / name).symlink_to(RUN / name)
    yield directory
    note = directory / "socket-directory"
    sockets = Path(note.read_text().strip()) if note.exists() else directory / "r"
    wait_until(lambda: not processes_of(directory, sockets), 10)
    left = [str(path) for path in sockets.rglob("*") if path != sockets / "i"]
    shutil.rmtree(sockets)
    assert left == []


@contextmanager
def make_run(run_dir: Path, port: int, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """The output goes to `output` in the run directory."""
    with (
        (run_dir / "output").open("wb") as output,
        subprocess.Popen(
            [*QUICKSTART, *options],
            cwd=CLONE,
            env=environment(run_dir, port, {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()


def output_of(run_dir: Path) -> str:
    return (run_dir / "output").read_text()


def test_the_first_answer_is_streamed_with_the_times_of_each_step(
    run_dir: Path, unused_tcp_port: int
):
    with make_run(run_dir, unused_tcp_port, "--once") as once:
        assert once.wait() == 0, output_of(run_dir)
    said = output_of(run_dir)
    assert re.search(r"\ntiny-llama:( [a-z]+){3}", said.replace(",", "").replace(".", "")), said
    for moment in ("request sent", "first sign of life", "model ready", "first token"):
        assert re.search(rf"[0-9]+\.[0-9]{{2}} s  {moment}", said), said
    assert "last token (40 in all)" in said


def test_a_later_run_listens_at_once(run_dir: Path, unused_tcp_port: int):
    took = []
    for _ in range(3):  # the best counts: what else this machine does is not measured
        began = time.monotonic()
        with make_run(run_dir, unused_tcp_port) as later:
            wait_until(lambda: healthy(unused_tcp_port))
            took.append(time.monotonic() - began)
            later.send_signal(signal.SIGINT)
            assert later.wait(30) == 130
    assert min(took) < LISTENING


def test_it_serves_until_ctrl_c(run_dir: Path, unused_tcp_port: int):
    port = unused_tcp_port
    with make_run(run_dir, port) as served:
        wait_until(lambda: "until Ctrl-C" in output_of(run_dir), 120)
        curl = re.search(r"curl (http://\S+/v1/models)", output_of(run_dir))
        assert curl is not None
        with urllib.request.urlopen(curl[1]) as answer:
            assert b"tiny-qwen3" in answer.read()
        served.send_signal(signal.SIGINT)
        assert served.wait(30) == 0, output_of(run_dir)
    assert "stopping the models and the daemon" in output_of(run_dir)


def test_killed_or_interrupted_while_a_model_loads_it_leaves_nothing_in_the_way(
    run_dir: Path, unused_tcp_port: int
):
    with make_run(run_dir, unused_tcp_port) as killed:
        wait_until(lambda: "Starting, budget" in output_of(run_dir))
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    # The kernel tells the daemon of the first, and the second waits until it is gone.
    with make_run(run_dir, unused_tcp_port) as interrupted:
        # From here on a first SIGTERM is swallowed by vLLM. Source: vLLM 0.32.0.
        wait_until(lambda: "starting the engine" in output_of(run_dir), 90)
        interrupted.send_signal(signal.SIGINT)
        assert interrupted.wait(30) == 130, output_of(run_dir)
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", unused_tcp_port))


def healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def processes_of(*places: Path) -> list[psutil.Process]:
    """Processes that name one of these directories: the daemon by its file, engines by sockets."""
    found = []
    for process in psutil.process_iter():
        try:
            words = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if process.pid != os.getpid() and any(str(place) in words for place in places):
            found.append(process)
    return found
