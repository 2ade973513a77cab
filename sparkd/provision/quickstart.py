"""`make run`: from a clean clone to a streamed answer, then the daemon in the foreground.

Every step is kept for the next run. Whatever interrupts it leaves nothing that breaks that run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

import pynvml
from rich.prompt import Confirm

from sparkd.core.catalogue import Device
from sparkd.errors import ProvisionError, SparkdError
from sparkd.provision import disk
from sparkd.provision.clone import CloneState, Offered, open_clone_state, write_configuration
from sparkd.provision.commands import CommandFailedError, run_command
from sparkd.provision.first_answer import QUESTION, ask, ready_moment, show_times
from sparkd.provision.foreground import ForegroundDaemon, require_port
from sparkd.provision.installers import explain
from sparkd.provision.progress import Progress
from sparkd.provision.recipes import read_recipe
from sparkd.provision.runtimes import InstalledRuntime, build_runtime, register_runtime
from sparkd.provision.tiny_models import TinyKind, make_tiny_model

DEFAULT_PORT = 8009
RECIPES = Path(__file__).parents[2] / "conf" / "runtimes"
#: The recipe for each device, by file name.
RECIPE_FILES = {Device.CPU: "vllm-cpu.toml", Device.CUDA: "vllm-cuda.toml"}
#: Small enough for any GPU; 1.5 GB to download.
REAL_MODEL = "Qwen/Qwen3-0.6B"
INTERRUPTED = 130  # 128 + SIGINT, as shells count
#: How long a daemon that lost its `make run` may take to stop, in seconds.
LEFTOVER_LIMIT = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the caller asked for, on the command line and by SPARKD_* variables."""

    once: bool
    port: int
    directory: Path
    own_runtime: Path | None
    device: Device | None


def main(argv: Sequence[str] | None = None) -> int:
    progress = Progress()
    _end_like_ctrl_c(signal.SIGTERM, signal.SIGHUP)
    try:
        return run(read_wishes(argv, os.environ), progress)
    except SparkdError as error:
        progress.line(f"error: {error.sentence()}")
        return 1
    except OSError as error:
        progress.line(f"error: cannot go on: {error}")
        return 1
    except KeyboardInterrupt:
        progress.line("\ninterrupted; the next `make run` goes on from here")
        return INTERRUPTED


def read_wishes(argv: Sequence[str] | None, env: Mapping[str, str]) -> Wishes:
    parser = argparse.ArgumentParser(prog="quickstart", description=__doc__)
    parser.add_argument("--once", action="store_true", help="stop after the first answer")
    once = parser.parse_args(argv).once or env.get("SPARKD_ONCE", "") not in {"", "0"}
    port = env.get("SPARKD_PORT") or str(DEFAULT_PORT)
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ProvisionError(f"cannot use SPARKD_PORT={port}: it is not a port from 1 to 65535")
    device = env.get("SPARKD_DEVICE") or None
    if device is not None and device not in set(Device):
        raise ProvisionError(f"cannot use SPARKD_DEVICE={device}: it is not cpu or cuda")
    own = env.get("SPARKD_RUNTIME")
    return Wishes(
        once=once,
        port=int(port),
        directory=Path(env.get("SPARKD_RUN_DIR") or ".run"),
        own_runtime=Path(own) if own else None,
        device=Device(device) if device else None,
    )


def run(wishes: Wishes, progress: Progress) -> int:
    state = open_clone_state(wishes.directory)
    with _only_one(state, wishes.port, progress) as lock:
        require_port(wishes.port)
        runtime = choose_runtime(wishes, state, progress)
        models = choose_models(state, runtime, progress)
        write_configuration(state, wishes.port, runtime, models)
        return _serve(wishes, state, models, progress, lock)


@contextlib.contextmanager
def _only_one(state: CloneState, port: int, progress: Progress) -> Iterator[int]:
    """A daemon whose `make run` was killed still stops its engines: that is waited for."""
    file = state.root / "quickstart.lock"
    with file.open("a+") as held:
        if not disk.try_lock(held.fileno()):
            other = disk.holder(file)
            if other.isdecimal() and Path("/proc", other).exists():
                raise ProvisionError(
                    f"cannot start a second sparkd in {state.root}: process {other} is the first",
                    hint=f"use that one, or SPARKD_RUN_DIR=.run2 SPARKD_PORT={port + 1} make run",
                )
            with progress.step("Waiting for the daemon of an earlier run to stop"):
                _wait_for_lock(held.fileno())
        disk.note_holder(held.fileno())
        yield held.fileno()


def _wait_for_lock(descriptor: int) -> None:
    signal.signal(signal.SIGALRM, _too_long)
    signal.setitimer(signal.ITIMER_REAL, LEFTOVER_LIMIT)
    try:
        disk.lock(descriptor)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _too_long(number: int, frame: FrameType | None) -> NoReturn:
    raise ProvisionError(
        f"the daemon of an earlier run did not stop within {LEFTOVER_LIMIT:.0f} s",
        hint="find it with: pgrep -af 'sparkd serve'",
    )


def choose_runtime(wishes: Wishes, state: CloneState, progress: Progress) -> InstalledRuntime:
    """The caller's own vLLM, else the one built here for this machine's device."""
    if wishes.own_runtime is not None:
        return register_runtime(wishes.own_runtime, state.runtimes, "own", progress)
    device = wishes.device or (Device.CUDA if has_nvidia_gpu() else Device.CPU)
    recipe = read_recipe(RECIPES / RECIPE_FILES[device])
    return build_runtime(recipe, state.runtimes, progress)


def has_nvidia_gpu() -> bool:
    try:
        pynvml.nvmlInit()
        return bool(pynvml.nvmlDeviceGetCount() > 0)
    except pynvml.NVMLError:
        return False


def choose_models(
    state: CloneState, runtime: InstalledRuntime, progress: Progress
) -> tuple[Offered, ...]:
    """Two tiny models always; a real one first if there is a GPU and the caller wants it."""
    models = []
    for kind in (TinyKind.LLAMA, TinyKind.QWEN3):
        place = make_tiny_model(runtime.python, kind, state.weights / f"tiny-{kind}", progress)
        what = f"A tiny {kind} with random weights: says random words"
        models.append(Offered(id=place.name, source=str(place), description=what, tiny=True))
    if runtime.device is Device.CUDA and _wants_real_model(runtime, progress):
        real = Offered(
            id="qwen3-0.6b", source=REAL_MODEL, description="Qwen3 0.6B by Alibaba", tiny=False
        )
        models.insert(0, real)
    return tuple(models)


def _wants_real_model(runtime: InstalledRuntime, progress: Progress) -> bool:
    """Asked on a terminal only. A download that fails leaves the tiny models."""
    if not (progress.interactive and sys.stdin.isatty() and _hub_answers()):
        return False
    if not Confirm.ask(f"Download {REAL_MODEL} too (1.5 GB)?", default=False):
        return False
    code = f"import huggingface_hub; huggingface_hub.snapshot_download({REAL_MODEL!r})"
    try:
        with progress.step(f"Downloading {REAL_MODEL}") as step:
            run_command([str(runtime.python), "-c", code], on_line=step.detail)
    except CommandFailedError as error:
        cause, _ = explain(error.tail)
        progress.line(f"    cannot download {REAL_MODEL}: {cause}; going on without it")
        return False
    return True


def _hub_answers() -> bool:
    try:
        socket.create_connection(("huggingface.co", 443), timeout=2.0).close()
    except OSError:
        return False
    return True


def _serve(
    wishes: Wishes, state: CloneState, models: Sequence[Offered], progress: Progress, lock: int
) -> int:
    with ForegroundDaemon(state.config, state.log, progress, lock) as daemon:
        with progress.step(f"Starting the daemon on 127.0.0.1:{wishes.port}"):
            daemon.wait_listening(wishes.port)
        times = ask(wishes.port, models[0].id, progress)
        show_times(times, ready_moment(state.control_socket, models[0].id), progress)
        if wishes.once:
            return 0
        _say_how_to_go_on(wishes, state, models, progress)
        with contextlib.suppress(KeyboardInterrupt):  # the ordinary end
            daemon.wait_end()
    return 0


def _say_how_to_go_on(
    wishes: Wishes, state: CloneState, models: Sequence[Offered], progress: Progress
) -> None:
    url = f"http://127.0.0.1:{wishes.port}"
    body = {"model": models[-1].id, "stream": True, "max_tokens": 40}
    body["messages"] = [{"role": "user", "content": QUESTION}]
    sparkctl = f"{Path(sys.executable).with_name('sparkctl')} --socket {state.control_socket}"
    progress.line(f"\nsparkd listens on {url} until Ctrl-C. In another terminal:\n")
    progress.line(f"  curl {url}/v1/models")
    progress.line(f"  curl -N {url}/v1/chat/completions -H 'Content-Type: application/json' \\")
    progress.line(f"    -d '{json.dumps(body)}'")
    progress.line(f"  {sparkctl} status")
    progress.line(f"  {sparkctl} logs {models[0].id}")
    progress.line(f"\nThe daemon's log: {state.log}; models: {state.catalogue}/*.toml\n")


def _end_like_ctrl_c(*signals: signal.Signals) -> None:
    """A closed terminal and `kill` are answered as Ctrl-C is."""

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    for one in signals:
        signal.signal(one, interrupt)
