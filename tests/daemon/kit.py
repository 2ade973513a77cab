"""A whole sparkd as a child process with the fake engine: its files, its clients, what it leaves.

A `House` is a short temporary directory with a configuration; a `Daemon` is one run of
`python -m sparkd serve` in it. Nothing here knows what is inside the daemon: everything is asked
over its two faces, or seen from outside (processes, files, the engines' journal).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import openai
import tomli_w

from sparkd.host.shim import MARK, process
from tests.daemon.clients import HELLO, Reply, Stream, asked_of
from tests.host.kit import FAKE, eventually, marked

CLONE = Path(__file__).parent.parent.parent
#: Enough for three models of the default budget.
LIMIT, BUDGET = "300MiB", "100MiB"


class House:
    """The files of one sparkd: configuration, weights, a runtime that is the fake, directories."""

    def __init__(self, root: Path):
        self.root = root
        self.file = root / "sparkd.toml"
        self.catalogue, self.runtimes = root / "m", root / "r"
        self.run, self.state = root / "run", root / "state"
        self.control_socket = root / "c"
        self.journal = root / "journal"
        self.daemons: list[Daemon] = []
        for directory in (self.catalogue, self.runtimes / "fake"):
            directory.mkdir(parents=True)
        runtime = {"name": "fake", "kind": "venv", "device": "cpu"}
        command = [sys.executable, str(FAKE), "serve"]
        _write_toml(self.runtimes / "fake/runtime.toml", {**runtime, "command": command})
        self.configure()

    def configure(self, **tables: Mapping[str, object]) -> None:
        """Writes sparkd.toml: `tables` over what suits a test (nothing waits for long)."""
        settings: dict[str, dict[str, object]] = {
            "server": {
                "listen": ["127.0.0.1:0"],
                "control_socket": str(self.control_socket),
                "drain_timeout": "5s",
                "loading_comment_interval": "200ms",
            },
            "paths": {
                "models": [str(self.catalogue)],
                "runtimes": str(self.runtimes),
                "state": str(self.state),
                "run": str(self.run),
            },
            "memory": {"limit": LIMIT, "reserve": "64MiB"},
            "defaults": {"lifecycle": {"min_residency": "0"}},
        }
        for name, table in tables.items():
            settings[name] = {**settings.get(name, {}), **table}
        _write_toml(self.file, settings)

    def model(
        self, name: str, *args: str, start: float = 0.2, weights: bool = True, **settings: object
    ) -> Path:
        """Writes a model whose engine gets `args` beside what all fakes get. Returns its file.

        `settings` are keys and tables of the model's file, over the defaults.
        """
        directory = self.root / "w" / name
        if weights:
            directory.mkdir(parents=True, exist_ok=True)
            for name_of_file in ("config.json", "model.safetensors"):
                (directory / name_of_file).touch()
        fake = ["--fake-journal", str(self.journal), "--fake-start-seconds", str(start), *args]
        document: dict[str, object] = {
            "source": str(directory),
            "runtime": "fake",
            "engine": {"args": fake},
            "memory": {"budget": BUDGET},
        }
        file = self.catalogue / f"{name}.toml"
        _write_toml(file, {**document, **settings})
        return file

    async def start(
        self, *, soft_limit: int | None = None, environment: Mapping[str, str] | None = None
    ) -> Daemon:
        """A daemon that listens. `soft_limit`: of open files, as its parent left it."""
        limited = ("sh", "-c", f'ulimit -Sn {soft_limit} && exec "$@"', "sh")
        daemon = Daemon(self, environment or {}, () if soft_limit is None else limited)
        self.daemons.append(daemon)
        await daemon.wait_listening()
        return daemon

    def sparkd(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Runs `sparkd` with this house's configuration to its end."""
        command = [sys.executable, "-m", "sparkd", *arguments, "--config", str(self.file)]
        return subprocess.run(
            command, cwd=CLONE, capture_output=True, text=True, timeout=30, check=False, **options
        )

    async def sparkctl(self, *arguments: str) -> tuple[int, str, str]:
        """Exit status, stdout and stderr."""
        process = await self.open_sparkctl(*arguments)
        out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    async def open_sparkctl(self, *arguments: str) -> asyncio.subprocess.Process:
        command = (sys.executable, "-m", "sparkd.cli.main", "--socket", str(self.control_socket))
        pipe = subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            *command, *arguments, cwd=CLONE, stdout=pipe, stderr=pipe
        )

    async def close(self) -> None:
        """Ends what runs. A daemon that was not killed must end well, and leave nothing."""
        for daemon in self.daemons:
            await daemon.close()
        await self.until_empty()

    # What the engines say ---------------------------------------------------------------------

    def told(self, model: str | None = None, event: str | None = None) -> list[dict[str, Any]]:
        """The engines' journal in the order of time, without sparkd's own readiness probes."""
        if not self.journal.exists():
            return []
        entries = [json.loads(line) for line in self.journal.read_text().splitlines()]
        probes = {(e["pid"], e["request"]) for e in entries if _is_probe(e)}
        return [
            e
            for e in sorted(entries, key=lambda e: float(e["at"]))
            if (e["pid"], e.get("request")) not in probes
            and model in (None, e["model"])
            and event in (None, e["event"])
        ]

    def starts(self, model: str | None = None) -> list[str]:
        """The models that were started, in that order."""
        return [e["model"] for e in self.told(model, "started")]

    async def until_told(self, model: str, event: str, times: int = 1, seconds: float = 10) -> None:
        """Returns when the engines of the model have told of so many such events."""
        await eventually(lambda: len(self.told(model, event)) >= times, seconds)

    # What is left -----------------------------------------------------------------------------

    def alive(self) -> list[int]:
        """Living processes of any instance of this house."""
        return marked(self.run)

    def instances(self) -> list[Path]:
        directory = self.run / "i"
        return sorted(directory.iterdir()) if directory.exists() else []

    def shared_memory(self) -> set[str]:
        """What living engines of this house have in /dev/shm."""
        cores = {f"fake{pid}" for pid in self.alive()}
        names = (entry.name for entry in Path("/dev/shm").iterdir())
        return {name for name in names if re.sub(r"^(psm_|sem\.mp-)", "", name) in cores}

    async def until_empty(self, seconds: float = 5.0) -> None:
        """Returns when no process and no file of any instance is left."""
        try:
            await eventually(lambda: not self.alive() and not self.instances(), seconds)
        except TimeoutError:
            left = {pid: _command_of(pid) for pid in self.alive()}
            raise AssertionError(f"left: {left} {self.instances()}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """One instance's processes and its directory."""

    directory: Path
    shim: int
    server: int
    core: int

    def alive(self) -> list[int]:
        mark = f"{MARK}={self.directory}".encode()
        return [pid for pid in marked(self.directory.parent) if mark in _environment(pid)]

    def pid_of(self, part: str) -> int:
        return int(getattr(self, part))

    async def until_gone(self, seconds: float = 5.0) -> None:
        await eventually(lambda: not self.directory.exists() and not self.alive(), seconds)


class Daemon:
    """One run of `sparkd serve`, and clients of it."""

    def __init__(self, house: House, environment: Mapping[str, str], prefix: tuple[str, ...]):
        self.house = house
        self.log_file = house.root / f"log{len(house.daemons)}"
        self.killed = False
        self.port = 0
        self._session: aiohttp.ClientSession | None = None
        self._control: aiohttp.ClientSession | None = None
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "sparkd", "serve", "--config", str(house.file)],
                cwd=CLONE,
                env={**os.environ, "PYTHONWARNINGS": "always::ResourceWarning", **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    # Life -------------------------------------------------------------------------------------

    async def wait_listening(self, seconds: float = 15.0) -> None:
        await eventually(lambda: "Control socket" in self.log or self.exited, seconds)
        assert not self.exited, self.log
        found = re.search(r"Listening on http://127\.0\.0\.1:(\d+)", self.log)
        assert found is not None, self.log
        self.port = int(found[1])
        timeout = aiohttp.ClientTimeout(total=60)
        self._session = aiohttp.ClientSession(
            self.url, timeout=timeout, connector=aiohttp.TCPConnector(limit=0)
        )
        self._control = aiohttp.ClientSession(
            "http://sparkd",
            timeout=timeout,
            connector=aiohttp.UnixConnector(str(self.house.control_socket)),
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def exited(self) -> bool:
        return self.process.poll() is not None

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def wait_exit(self, seconds: float = 15.0) -> int:
        await eventually(lambda: self.exited, seconds)
        return self.process.wait()

    async def kill(self) -> None:
        """As by -9."""
        self.killed = True
        self.process.kill()
        await asyncio.to_thread(self.process.wait)

    async def close(self) -> None:
        """Stops it if it still runs. It must have ended well, and never met a surprise."""
        for session in (self._session, self._control):
            if session is not None:
                await session.close()
        try:
            if not self.exited:
                self.signal(signal.SIGTERM)
                assert await self.wait_exit() == 0, self.log
        finally:
            self.process.kill()
            self.process.wait()
        for surprise in ("Traceback", "unexpected error", "ResourceWarning", "never retrieved"):
            assert surprise not in self.log, self.log

    # Clients ----------------------------------------------------------------------------------

    async def chat(self, model: str, **body: object) -> Reply:
        """One chat completion, not streamed."""
        return await self.post("/v1/chat/completions", {"model": model, "messages": HELLO, **body})

    async def post(self, path: str, body: object) -> Reply:
        assert self._session is not None
        return await asked_of(self._session.post(path, json=body))

    async def get(self, path: str) -> Reply:
        assert self._session is not None
        return await asked_of(self._session.get(path))

    @contextlib.asynccontextmanager
    async def stream(self, model: str, **body: object) -> AsyncIterator[Stream]:
        """A streamed chat completion; leaving the block leaves the answer."""
        assert self._session is not None
        asked = {"model": model, "messages": HELLO, "stream": True, **body}
        async with self._session.post("/v1/chat/completions", json=asked) as response:
            yield Stream(response)

    async def streamed(self, model: str, **body: object) -> Stream:
        """A streamed chat completion, read to its end."""
        async with self.stream(model, **body) as stream:
            return await stream.to_end()

    def openai(self) -> openai.AsyncOpenAI:
        """The official client, without its retries: they would hide errors."""
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0)

    async def control(self, method: str, path: str, body: object = None) -> Reply:
        assert self._control is not None
        return await asked_of(self._control.request(method, f"/sparkd/v1{path}", json=body))

    async def states(self) -> dict[str, str]:
        """The state of each instance, by model."""
        status = (await self.control("GET", "/status")).json
        return {one["model"]: one["state"] for one in status["instances"]}

    async def until(self, condition: Callable[[dict[str, str]], bool], seconds: float = 10) -> None:
        """Returns when the instances' states are as told."""
        async with asyncio.timeout(seconds):
            while not condition(await self.states()):  # noqa: ASYNC110  no event crosses processes
                await asyncio.sleep(0.01)

    async def until_wanted(self, *models: str, seconds: float = 10) -> None:
        """Returns when each model has an instance, or someone who waits for it."""
        async with asyncio.timeout(seconds):
            while True:
                status = (await self.control("GET", "/status")).json
                if set(models) <= {one["model"] for one in status["instances"] + status["waiting"]}:
                    return

    async def until_nobody_waits(self, seconds: float = 10) -> None:
        async with asyncio.timeout(seconds):
            while (await self.control("GET", "/status")).json["waiting"]:
                pass

    async def until_ready(self, *models: str) -> None:
        await self.until(lambda states: all(states.get(m) == "ready" for m in models))

    async def parts(self, model: str) -> Parts:
        """The processes of the model's instance, once all of them are there."""

        def found() -> Parts | None:
            started = self.house.told(model, "started")
            return _parts_of(started[-1]["pid"]) if started else None

        async with asyncio.timeout(10):
            while (parts := await asyncio.to_thread(found)) is None:
                pass
        return parts


def _parts_of(server: int) -> Parts | None:
    entry = process(server)
    marks = [one for one in _environment(server) if one.startswith(f"{MARK}=".encode())]
    if entry is None or not marks:
        return None
    directory = Path(marks[0].decode().partition("=")[2])
    for pid in marked(directory.parent):
        child = process(pid)
        if child is not None and child.parent == server and "EngineCore" in _command_of(pid):
            return Parts(directory=directory, shim=entry.parent, server=server, core=pid)
    return None


def _is_probe(entry: Mapping[str, Any]) -> bool:
    asked: dict[str, object] = entry.get("asked", {})
    return asked.get("prompt") == "a" and asked.get("max_tokens") == 1


def _environment(pid: int) -> list[bytes]:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return []


def _command_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


def _write_toml(file: Path, document: Mapping[str, object]) -> None:
    file.write_bytes(tomli_w.dumps(document).encode())
