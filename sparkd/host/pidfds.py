"""Watches the processes that an engine cannot live without, by pidfd: no polling, no pid reuse.

Knows how vLLM titles them; decides nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from sparkd.host import shim

# Source: vllm/utils/system_utils.py of 0.32.0, `set_process_title`. comm keeps 15 characters.
_PREFIX = "VLLM::"
_VITAL = (b"VLLM::EngineCor", b"VLLM::Worker")
_CUT = {"EngineCor": "EngineCore"}  # all that comm tells, of one that has ended too


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A live process held by its pidfd."""

    pid: int
    title: str
    pidfd: int


def find_vital(root: int) -> list[Watched]:
    """EngineCore and its workers below `root`. Blocks for a walk through /proc."""
    return [found for one in shim.descendants(root) if (found := _vital(one)) is not None]


def _vital(one: shim.Process) -> Watched | None:
    with contextlib.suppress(OSError):
        title = _title(one.pid)
        if not title.startswith(_VITAL):
            return None
        pidfd = shim.pidfd_open(one.pid)
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, pidfd)
            again = shim.process(one.pid)  # raises where this pidfd was the last descriptor
            if again is not None and again.start == one.start:
                undo.pop_all()
                return Watched(pid=one.pid, title=_name(title), pidfd=pidfd)
    return None


def _name(title: bytes) -> str:
    name = title.split(b"\0")[0].decode(errors="replace").removeprefix(_PREFIX)
    return _CUT.get(name, name)


def _title(pid: int) -> bytes:
    proc = Path(f"/proc/{pid}")
    title = (proc / "cmdline").read_bytes()
    return title if title.startswith(_VITAL) else (proc / "comm").read_bytes().strip()


class VitalWatch:
    """Calls `on_death` once, when the first of the watched processes ends."""

    def __init__(self, on_death: Callable[[Watched], None]):
        self._on_death = on_death
        self._watched: dict[int, Watched] = {}
        self._closed = False

    def add(self, processes: Iterable[Watched]) -> None:
        loop = asyncio.get_running_loop()
        known = {one.pid for one in self._watched.values()}
        for one in processes:
            if self._closed or one.pid in known:  # a later search finds them again
                os.close(one.pidfd)
                continue
            self._watched[one.pidfd] = one
            loop.add_reader(one.pidfd, self._ended, one)

    def close(self) -> None:
        self._closed = True
        loop = asyncio.get_running_loop()
        while self._watched:
            pidfd, _ = self._watched.popitem()
            loop.remove_reader(pidfd)
            os.close(pidfd)

    def _ended(self, one: Watched) -> None:
        self.close()
        self._on_death(one)
