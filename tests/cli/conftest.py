"""A served control API, and `sparkctl` as a process beside it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.api.fakes import FakeDaemon, short_directory

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Finished:
    """How a `sparkctl` ended."""

    code: int | None
    out: str
    err: str

    @property
    def json(self) -> dict[str, object]:
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found

    @property
    def error(self) -> dict[str, object]:
        found = self.json["error"]
        assert isinstance(found, dict)
        return found


@dataclass(frozen=True)
class Sparkctl:
    """Runs `sparkctl` against one socket."""

    socket: str
    program: tuple[str, ...] = ("-m", "sparkd.cli.main")

    async def __call__(self, *args: str, **env: str) -> Finished:
        async with self.running(*args, env=env) as process:
            out, err = await process.communicate()
        return Finished(process.returncode, out.decode(), err.decode())

    @asynccontextmanager
    async def running(
        self, *args: str, stdout: int = asyncio.subprocess.PIPE,
        stderr: int = asyncio.subprocess.PIPE, env: Mapping[str, str] | None = None,
    ) -> AsyncIterator[asyncio.subprocess.Process]:  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            sys.executable, *self.program, *args,
            stdout=stdout, stderr=stderr, cwd=ROOT, env=self._env(env or {}),
        )  # fmt: skip
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()

    def _env(self, more: Mapping[str, str]) -> dict[str, str]:
        """Nothing of the terminal that runs the tests, such as NO_COLOR or its size."""
        kept = {
            name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ
        }
        base = {"SPARKD_SOCKET": self.socket, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
        return {**kept, **base, **more}


#: Gives its rights up just before it connects: earlier, and it could not import a thing.
_AS_NOBODY = """
import os
import sparkd.cli.client
import sparkd.cli.main
connect = sparkd.cli.client._UnixConnection.connect
def connect_as_nobody(self):
    os.setgroups([])
    os.setegid(65534)
    os.seteuid(65534)
    connect(self)
sparkd.cli.client._UnixConnection.connect = connect_as_nobody
sparkd.cli.main.main()
"""


def as_nobody(path: str) -> Sparkctl:
    """`sparkctl` by an ordinary user: another one when we are root, ourselves when we are not."""
    return Sparkctl(path, ("-c", _AS_NOBODY)) if os.geteuid() == 0 else Sparkctl(path)


@pytest.fixture
async def daemon() -> AsyncIterator[FakeDaemon]:
    fake = FakeDaemon()
    async with fake.served():
        yield fake


@pytest.fixture
def sparkctl(daemon: FakeDaemon) -> Sparkctl:
    return Sparkctl(daemon.path)


@pytest.fixture
def directory() -> Iterator[str]:
    with short_directory() as path:
        yield path
