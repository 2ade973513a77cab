"""What engines print: cut into lines, kept in memory and in one rotated file per model.

Nothing here blocks the loop or stops an engine: a full disk costs the file, not the memory of the
last lines. Prompts are not printed by vLLM unless a model's arguments ask for it.
"""

from __future__ import annotations

import asyncio
import codecs
import logging
import os
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from sparkd.core.catalogue import ModelId
from sparkd.core.quantities import KIB, MIB

_log = logging.getLogger(__name__)

_LINE_LIMIT = 8 * KIB
_FILE_LIMIT = 10 * MIB
_KEPT = 2  # files per model: the current one and the one before
_PENDING_LIMIT = 4 * MIB  # of lines that wait for a slow disk
_WRITE_AFTER = 0.2  # s from the first waiting line to its write
_FOLLOWER_LIMIT = 2000  # lines


class LineSplitter:
    """Bytes in, lines out. A progress bar's carriage return ends a line as a newline does."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._rest = ""
        self._cutting = False  # inside a line that was too long and is already out

    def feed(self, data: bytes) -> list[str]:
        return self._take(self._decoder.decode(data))

    def end(self) -> list[str]:
        """The last line, if it had no newline."""
        return self._take(self._decoder.decode(b"", final=True) + "\n")

    def _take(self, text: str) -> list[str]:
        *whole, rest = (self._rest + text).replace("\r", "\n").split("\n")
        lines = []
        for line in whole:
            if not self._cutting and line.strip():
                lines.append(_cut(line))
            self._cutting = False
        if len(rest) > _LINE_LIMIT:
            if not self._cutting:
                lines.append(_cut(rest))
            self._cutting, rest = True, ""
        self._rest = rest
        return lines


def _cut(line: str) -> str:
    return line if len(line) <= _LINE_LIMIT else line[: _LINE_LIMIT - 1] + "…"


class LogStore:
    """The logs of all models, living and dead."""

    def __init__(self, directory: Path, *, ring_lines: int = 200):
        self._directory = directory
        self._ring_lines = ring_lines
        self._logs: dict[ModelId, _ModelLog] = {}

    def append(self, model: ModelId, line: str) -> None:
        """Takes one line, for the ring at once and for the file soon."""
        self._log_of(model).append(line)

    async def tail(self, model: ModelId, lines: int = 200) -> tuple[str, ...]:
        """The last lines, oldest first; from the file when memory does not hold as many."""
        return await self._log_of(model).tail(lines)

    @contextmanager
    def follow(self, model: ModelId) -> Iterator[AsyncIterator[str]]:
        """Lines from now on. A follower that is too slow misses the oldest and is told so."""
        with self._log_of(model).followed() as follower:
            yield follower

    async def close(self) -> None:
        """Returns when what can be written is written; ends all followers."""
        for log in self._logs.values():
            await log.close()

    def _log_of(self, model: ModelId) -> _ModelLog:
        if model not in self._logs:
            path = self._directory / f"{quote(model, safe='')}.log"
            self._logs[model] = _ModelLog(path, self._ring_lines)
        return self._logs[model]


class _ModelLog:
    """One model's ring, file and followers."""

    def __init__(self, path: Path, ring_lines: int):
        self._ring: deque[str] = deque(maxlen=ring_lines)
        self._writer = _FileWriter(path)
        self._followers: list[_Follower] = []

    def append(self, line: str) -> None:
        self._ring.append(line)
        self._writer.append(line)
        for follower in self._followers:
            follower.put(line)

    async def tail(self, lines: int) -> tuple[str, ...]:
        if lines > len(self._ring):
            written = await self._writer.tail(lines)
            if len(written) > len(self._ring):
                return written
        return tuple(self._ring)[-lines:] if lines > 0 else ()

    @contextmanager
    def followed(self) -> Iterator[_Follower]:
        follower = _Follower()
        self._followers.append(follower)
        try:
            yield follower
        finally:
            self._followers.remove(follower)

    async def close(self) -> None:
        for follower in self._followers:
            follower.end()
        await self._writer.flush()


class _Follower:
    """An async iterator over a bounded queue that never makes its writer wait."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_FOLLOWER_LIMIT)
        self._missed = 0
        self._ended = False
        self._news = asyncio.Event()

    def put(self, line: str) -> None:
        if len(self._lines) == _FOLLOWER_LIMIT:
            self._missed += 1
        self._lines.append(line)
        self._news.set()

    def end(self) -> None:
        self._ended = True
        self._news.set()

    def __aiter__(self) -> _Follower:
        return self

    async def __anext__(self) -> str:
        while not self._lines and not self._ended:
            self._news.clear()
            await self._news.wait()
        if self._missed:
            missed, self._missed = self._missed, 0
            return f"[{missed} lines were dropped here: the reader was too slow]"
        if not self._lines:
            raise StopAsyncIteration
        return self._lines.popleft()


class _FileWriter:
    """Appends in a thread, at most one write at a time, a moment after the first waiting line."""

    def __init__(self, path: Path):
        self._path = path
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Future[None] | None = None
        self._failed = False
        self._readers = 0  # while there are any, nothing is written: they would miss it
        self._unread = asyncio.Event()

    def append(self, line: str) -> None:
        data = line.encode(errors="replace") + b"\n"
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        while self._waiting_bytes > _PENDING_LIMIT:
            self._waiting_bytes -= len(self._waiting.popleft())
        if self._timer is None and self._writing is None:
            self._timer = asyncio.get_running_loop().call_later(_WRITE_AFTER, self._start)

    async def flush(self) -> None:
        while self._waiting or self._writing is not None:
            self._start()
            if self._writing is not None:
                await asyncio.wait([self._writing])
            elif self._readers:
                self._unread.clear()
                await self._unread.wait()

    async def tail(self, lines: int) -> tuple[str, ...]:
        """What the file has and what waits for it, complete at the moment of the return."""
        self._readers += 1
        try:
            while self._writing is not None:
                await asyncio.wait([self._writing])
            written = await asyncio.to_thread(_last_lines, self._path, lines)
            waiting = (data.decode().removesuffix("\n") for data in self._waiting)
            return (*written, *waiting)[-lines:]
        finally:
            self._readers -= 1
            if not self._readers:
                self._unread.set()
                self._start()

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writing is None and self._waiting and not self._readers:
            data = b"".join(self._waiting)
            self._waiting.clear()
            self._waiting_bytes = 0
            loop = asyncio.get_running_loop()
            self._writing = loop.run_in_executor(None, _write, self._path, data)
            self._writing.add_done_callback(self._written)

    def _written(self, done: asyncio.Future[None]) -> None:
        self._writing = None
        error = None if done.cancelled() else done.exception()
        if error is not None and not self._failed:
            _log.warning("cannot write the log %s: %s; it goes on in memory", self._path, error)
        self._failed = error is not None
        self._start()


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(data)
        full = file.tell() >= _FILE_LIMIT
    if full:
        _rotate(path)


def _rotate(path: Path) -> None:
    names = [path, *(path.with_suffix(f".log.{n}") for n in range(1, _KEPT))]
    for newer, older in zip(reversed(names[:-1]), reversed(names[1:]), strict=True):
        newer.replace(older)


def _last_lines(path: Path, lines: int) -> tuple[str, ...]:
    """Reads from the end: 64 KiB more each time, over the older file too."""
    if lines <= 0:
        return ()
    found = b""
    for file_path in (path, path.with_suffix(".log.1")):
        try:
            with file_path.open("rb") as file:
                position = file.seek(0, os.SEEK_END)
                while position and found.count(b"\n") <= lines:
                    step = min(position, 64 * KIB)
                    position -= step
                    file.seek(position)
                    found = file.read(step) + found
        except OSError:  # mostly: no such file; a disk that refuses costs the file alone
            continue
    return tuple(found.decode(errors="replace").splitlines()[-lines:])
