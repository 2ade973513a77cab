"""A daemon as a child process with real vLLM engines, and what its engines leave on this machine.

Decides nothing about what is tested. Everything lies in one short directory, removed after.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import openai
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessageParam

from sparkd.core.catalogue import Runtime
from sparkd.host import shim

CLONE = Path(__file__).parents[2]
NOBODY = 65534

#: What one tiny engine with a KV cache of 64 MiB takes. Source: measured, vLLM 0.32.0 on CPU.
BUDGET = "1.2GiB"
#: Tokens that take some seconds: 300 to 600 a second, one stream.
MANY_TOKENS = 1900
ENGINE_CORE = "VLLM::EngineCore"
PROMPT: list[ChatCompletionMessageParam] = [{"role": "user", "content": "say something"}]


def model_file(
    source: Path | str, *, runtime: str = "vllm-cpu", task: str = "generate", budget: str = BUDGET,
    aliases: Sequence[str] = (), args: Sequence[str] = (), max_model_len: int | None = 2048,
) -> str:  # fmt: skip
    """The TOML of a model that starts as fast as vLLM can."""
    length = "" if max_model_len is None else f"max_model_len = {max_model_len}"
    return f"""
source = "{source}"
runtime = "{runtime}"
task = "{task}"
aliases = {json.dumps(list(aliases))}
[engine]
args = {json.dumps(["--enforce-eager", *args])}
kv_cache = "64MiB"
{length}
[engine.env]
VLLM_ENABLE_V1_MULTIPROCESSING = "0"
[memory]
budget = "{budget}"
"""


@dataclass
class Daemon:
    """One directory with a configuration, and the daemon that runs there now."""

    directory: Path
    python: Sequence[str] = (sys.executable,)
    user: int | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    _process: subprocess.Popen[bytes] | None = None

    @property
    def config(self) -> Path:
        return self.directory / "sparkd.toml"

    @property
    def run_dir(self) -> Path:
        return self.directory / "r"

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    def printed(self, model: str) -> str:
        """All that this model's engines have printed."""
        found = sorted((self.directory / "state" / "logs").glob(f"{model}*"))
        return "".join(one.read_text(errors="replace") for one in found)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def configure(self, models: Mapping[str, str], *, limit: str, runtimes: Path) -> None:
        directory = self.directory / "models.d"
        directory.mkdir()
        for name, text in models.items():
            (directory / f"{name}.toml").write_text(text)
        self.config.write_text(f"""
[server]
listen = ["127.0.0.1:0"]
control_socket = "{self.directory}/control.sock"
loading_comment_interval = "500ms"
[paths]
models = ["{directory}"]
runtimes = "{runtimes}"
state = "{self.directory}/state"
run = "{self.run_dir}"
[memory]
limit = "{limit}"
""")

    def start(self) -> None:
        """Returns when it listens."""
        log = self.directory / "log"
        log.write_bytes(b"")
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*self.python, "-m", "sparkd", "serve", "--config", str(self.config)],
                cwd=CLONE, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env={**os.environ, **self.env}, **_as(self.user),
            )  # fmt: skip
        deadline = time.monotonic() + 30
        while not (found := re.search(r"Listening on http://127.0.0.1:(\d+)", self.log)):
            assert self._process.poll() is None, f"sparkd ended: {self.log}"
            assert time.monotonic() < deadline, f"sparkd does not listen: {self.log}"
            select.select([], [], [], 0.02)
        self.port = int(found[1])

    def kill(self) -> None:
        """SIGKILL, to the daemon alone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """SIGTERM; returns the exit status when all has ended."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        return self._process.returncode

    def client(self) -> openai.AsyncOpenAI:
        """The official client; it must not hide a failure by asking again."""
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key="unused", max_retries=0)

    async def control(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        connector = aiohttp.UnixConnector(str(self.directory / "control.sock"))
        async with (
            aiohttp.ClientSession("http://sparkd", connector=connector) as session,
            session.request(method, f"/sparkd/v1{path}", json=body) as answer,
        ):
            found = await answer.json()
            assert isinstance(found, dict)
            return found

    async def instance(self, model: str) -> dict[str, Any] | None:
        found = (await self.control("GET", f"/models/{model}"))["instance"]
        assert found is None or isinstance(found, dict)
        return found

    async def trace(self, model: str) -> Trace:
        found = await self.instance(model)
        assert found is not None, f"{model} has no instance"
        return await asyncio.to_thread(Trace.of, self.run_dir / "i" / found["id"])


async def chat(client: openai.AsyncOpenAI, model: str, tokens: int = 8) -> ChatCompletion:
    """An answer of exactly so many tokens."""
    return await client.chat.completions.create(
        model=model, messages=PROMPT, max_tokens=tokens, extra_body={"ignore_eos": True}
    )


async def chat_stream(
    client: openai.AsyncOpenAI, model: str, tokens: int = 8
) -> openai.AsyncStream[ChatCompletionChunk]:
    """The same as a stream, with what it used in its last chunk."""
    return await client.chat.completions.create(
        model=model, messages=PROMPT, max_tokens=tokens, extra_body={"ignore_eos": True},
        stream=True, stream_options={"include_usage": True},
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What one instance consists of on this machine, noted while it lives."""

    directory: Path
    processes: tuple[shim.Process, ...]
    shared_memory: frozenset[str]

    @classmethod
    def of(cls, directory: Path) -> Trace:
        processes = [one for pid in _marked(directory) if (one := shim.process(pid))]
        mapped = {inode for one in processes for inode in _mapped(one.pid)}
        # By number: glibc makes a semaphore under another name than it has later.
        names = frozenset(n.name for n in Path("/dev/shm").iterdir() if n.lstat().st_ino in mapped)
        return cls(directory=directory, processes=tuple(processes), shared_memory=names)

    @property
    def socket(self) -> str:
        return str(self.directory / "s")

    @property
    def api_server(self) -> int:
        pids = {one.pid for one in self.processes}
        (root,) = (one.pid for one in self.processes if one.parent not in pids)
        (main,) = (one.pid for one in self.processes if one.parent == root)
        return main

    @property
    def engine_core(self) -> int:
        (core,) = (one.pid for one in self.processes if _title(one.pid) == ENGINE_CORE)
        return core

    def left(self) -> list[str]:
        """What is still there; a zombie holds nothing."""
        left = [f"process {one.pid}" for one in self.processes if _lives(one)]
        left += [f"new process {pid}" for pid in _marked(self.directory)]
        left += [f"/dev/shm/{n}" for n in self.shared_memory if Path("/dev/shm", n).exists()]
        return left + ([str(self.directory)] if self.directory.exists() else [])

    async def is_gone(self, within: float) -> None:
        """Fails, and names what is left, unless all of it is gone within so many seconds."""
        try:
            await eventually(lambda: not self.left(), within)
        except TimeoutError:
            raise AssertionError(f"left after {within} s: {self.left()}") from None


def _marked(directory: Path) -> list[int]:
    """The living processes that carry the mark of this instance, or of one below `directory`."""
    mark = f"{shim.MARK}={directory}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            words = (entry / "environ").read_bytes().split(b"\0")
            if any(word == mark or word.startswith(mark + b"/") for word in words):
                found.append(int(entry.name))
    return found


def _mapped(pid: int) -> list[int]:
    """The numbers of the files in shared memory that this process maps."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    except OSError:
        return []
    return [int(line.split()[4]) for line in lines if " /dev/shm/" in line]


async def eventually(condition: Callable[[], object], seconds: float) -> None:
    """Returns when the condition holds. Raises TimeoutError when it does not in time."""
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110  it is not ours to tell
            await asyncio.sleep(0.02)


def _lives(one: shim.Process) -> bool:
    now = shim.process(one.pid)
    return now is not None and now.start == one.start and now.state != "Z"


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
    except OSError:
        return ""


async def engine_core_appears(daemon: Daemon, model: str) -> Trace:
    """Waits until the start of this model has come so far that EngineCore prints what it does.

    Before its first line sparkd cannot know it; its API server then tells of its death, and late.
    """
    async with asyncio.timeout(60):
        while True:
            if await daemon.instance(model) is not None:
                trace = await daemon.trace(model)
                cores = [one.pid for one in trace.processes if _title(one.pid) == ENGINE_CORE]
                said = (await asyncio.to_thread(daemon.printed, model)) if cores else ""
                if any(f"(EngineCore pid={core})" in said for core in cores):
                    return trace
            await asyncio.sleep(0.2)


def when_it_ends(pid: int) -> float:
    """Blocks until the process has ended; the time of that on the monotonic clock."""
    handle = os.pidfd_open(pid)
    try:
        select.select([handle], [], [])
        return time.monotonic()
    finally:
        os.close(handle)


@contextlib.contextmanager
def daemon_directory() -> Iterator[Path]:
    """Short, because unix sockets lie in it; afterwards no instance may be left in it."""
    directory = Path(tempfile.mkdtemp(prefix="spr"))
    try:
        yield directory
        assert _marked(directory) == [], "processes of instances are left"
    finally:
        shutil.rmtree(directory)


@contextlib.contextmanager
def running(
    models: Mapping[str, str], *, limit: str, runtimes: Path
) -> Iterator[Daemon]:  # fmt: skip
    """A daemon for as long as the block lasts."""
    with daemon_directory() as directory:
        daemon = Daemon(directory)
        daemon.configure(models, limit=limit, runtimes=runtimes)
        daemon.start()
        try:
            yield daemon
        except BaseException:
            sys.stderr.write(daemon.log)
            raise
        finally:
            status = daemon.stop()
        assert status == 0, daemon.log


@contextlib.asynccontextmanager
async def engine_session(trace: Trace) -> AsyncIterator[aiohttp.ClientSession]:
    """Straight to an engine's socket."""
    connector = aiohttp.UnixConnector(trace.socket)
    async with aiohttp.ClientSession("http://engine", connector=connector) as session:
        yield session


async def metric(session: aiohttp.ClientSession, name: str) -> float:
    """The sum over all labels of one of vLLM's metrics; `name` may name labels too."""
    async with session.get("/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


# Another user -------------------------------------------------------------------------------------


def python_of_everybody(runtime: Runtime) -> str | None:
    """This version's Python that any user may run: the runtime's own, or the system's."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (f"{runtime.root}/bin/python", f"/usr/bin/{name}"):
        with contextlib.suppress(OSError):  # it is not there, or in a closed home
            done = subprocess.run(
                [python, "-c", "import aiohttp, numpy, torch"], cwd="/", check=False,
                env={"PYTHONPATH": site_packages(runtime)}, capture_output=True,
                **_as(ordinary_user()),
            )  # fmt: skip
            if done.returncode == 0:
                return python
    return None


def site_packages(runtime: Runtime) -> str:
    (found,) = Path(runtime.root, "lib").glob("python3*/site-packages")
    return str(found)


def ordinary_user() -> int | None:
    """Whom a daemon runs as to have no privilege; None: it has none anyway."""
    return NOBODY if os.geteuid() == 0 else None


def _as(user: int | None) -> dict[str, Any]:
    return {} if user is None else {"user": user, "group": user, "extra_groups": []}
