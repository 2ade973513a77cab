"""What the tests of `sparkd.host` share: models that run the fake engine, and finding leftovers."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparkd.core.catalogue import Device, LaunchSpec, Model, ModelId, Runtime, RuntimeKind, Task
from sparkd.core.classify import classify
from sparkd.core.instance import InstanceId
from sparkd.core.quantities import MIB, Bytes
from sparkd.host import shim
from sparkd.host.engines import ProcessEngine
from sparkd.host.logs import LogStore
from sparkd.host.memory import HostMemoryProbe
from sparkd.host.processes import ProcessLauncher
from sparkd.host.readiness import HttpReadiness
from sparkd.host.shim import MARK
from sparkd.supervisor import ports

FAKE = Path(__file__).parent.parent / "fake_vllm.py"


def fake_model(name: str = "tiny", *args: str, task: Task = Task.GENERATE, weights: str = "tiny"):
    runtime = Runtime(
        name="fake",
        kind=RuntimeKind.VENV,
        device=Device.CPU,
        root=str(FAKE.parent),
        command=(sys.executable, str(FAKE), "serve"),
    )
    served = ("--fake-task", task.value, *args)
    launch = LaunchSpec(
        runtime=runtime, weights=weights, served_names=(name,), task=task, args=served
    )
    return Model(id=ModelId(name), launch=launch, budget=Bytes(64 * MIB))


def with_command(model: Model, *command: str) -> Model:
    runtime = replace(model.launch.runtime, command=command)
    return replace(model, launch=replace(model.launch, runtime=runtime))


@contextmanager
def short_directory() -> Iterator[Path]:
    """pytest's own are too long for unix sockets."""
    directory = Path(tempfile.mkdtemp(prefix="spk"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def marked(run_dir: Path) -> list[int]:
    """The living processes of instances in this run directory."""
    mark = f"{MARK}={run_dir}/".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if any(one.startswith(mark) for one in (entry / "environ").read_bytes().split(b"\0")):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def own_zombies() -> list[int]:
    return [one.pid for one in shim.processes() if one.parent == os.getpid() and one.state == "Z"]


def titled(run_dir: Path, title: str) -> list[int]:
    found = []
    for pid in marked(run_dir):
        try:
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(title.encode()):
                found.append(pid)
        except OSError:
            continue
    return found


def left_in_shared_memory(pids: list[int]) -> list[str]:
    names = {f"{prefix}fake{pid}" for pid in pids for prefix in ("psm_", "sem.mp-")}
    return sorted(names & {entry.name for entry in Path("/dev/shm").iterdir()})


def journal(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


async def eventually(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Returns when the condition holds; fails when it does not in time."""
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110  it is not ours to tell
            await asyncio.sleep(0.005)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@contextmanager
def so_many_descriptors(spare: int) -> Iterator[None]:
    """This process may open so many more, and no others."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(fd.name) for fd in Path("/proc/self/fd").iterdir())
    filler = [os.open("/dev/null", os.O_RDONLY)]
    while filler[-1] < highest:  # each takes the lowest that is free
        filler.append(os.open("/dev/null", os.O_RDONLY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (filler[-1] + 1 + spare, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in filler:
            os.close(fd)


if TYPE_CHECKING:
    # mypy shows here that the Protocols of the supervisor are satisfied.
    def _engine(one: ProcessEngine) -> ports.Engine:
        return one

    def _launcher(one: ProcessLauncher) -> ports.Launcher:
        return one

    def _readiness(one: HttpReadiness) -> ports.Readiness:
        return one

    def _probe(one: HostMemoryProbe) -> ports.MemoryProbe:
        return one

    _classifier: ports.Classifier = classify


class Bench:
    """A launcher with its run directory, and what its engines printed."""

    def __init__(self, launcher: ProcessLauncher, run_dir: Path, logs: LogStore):
        self.launcher = launcher
        self.run_dir = run_dir
        self.logs = logs
        self.lines: list[str] = []
        self._count = 0

    async def start(self, model: Model | None = None) -> ProcessEngine:
        self._count += 1
        instance = InstanceId(f"n{self._count:04}")
        return await self.launcher.start(instance, model or fake_model(), self.lines.append)

    async def ready(self, model: Model | None = None) -> ProcessEngine:
        model = model or fake_model()
        engine = await self.start(model)
        async with asyncio.timeout(20):
            await HttpReadiness().wait_ready(engine.upstream, model)
        engine.watch_vital()
        # Until the pidfds are open, a loss is told by the API server's own end. A search that is
        # still under way would hold descriptors.
        await eventually(
            lambda: not engine._searches and (engine._vital._watched or engine._lost.done())
        )
        return engine

    def instances(self) -> list[str]:
        return sorted(entry.name for entry in (self.run_dir / "i").iterdir())

    def alive(self) -> list[int]:
        return marked(self.run_dir)


@asynccontextmanager
async def processes_bench():
    zombies = set(await asyncio.to_thread(own_zombies))  # of other tests' processes
    with short_directory() as run_dir:
        logs = LogStore(run_dir / "logs")
        launcher = await ProcessLauncher.open(run_dir, logs)
        bench = Bench(launcher, run_dir, logs)
        try:
            yield bench
        finally:
            await launcher.close()
            await logs.close()
        # Whatever a test did: nothing may be left after the launcher is closed.
        assert await asyncio.to_thread(bench.alive) == []
        assert await asyncio.to_thread(bench.instances) == []
        assert set(await asyncio.to_thread(own_zombies)) <= zombies
