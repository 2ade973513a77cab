"""The `host` memory pool: RAM as /proc/meminfo and the daemon's own cgroup tell it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from sparkd.core.memory import MemoryView
from sparkd.core.quantities import KIB, Bytes
from sparkd.errors import HostError
from sparkd.host.cgroups import own_cgroups


class HostMemoryProbe:
    """Satisfies `sparkd.supervisor.ports.MemoryProbe`. Reads memory-backed files: never blocks."""

    def __init__(self, proc: Path):
        """Looks for the cgroup, which may block: `open` does it in a thread."""
        self._meminfo = _open(proc / "meminfo")
        self._groups = [
            group for path in own_cgroups(proc) if (group := _Cgroup.open(path)) is not None
        ]

    @classmethod
    async def open(cls, *, proc: Path = Path("/proc")) -> HostMemoryProbe:
        return await asyncio.to_thread(cls, proc)

    async def read(self) -> MemoryView:
        """A cgroup that is smaller than the machine is the pool: engines live in it too."""
        fields = _fields(self._meminfo, separator=":")
        total, available = fields["MemTotal"] * KIB, fields["MemAvailable"] * KIB
        for group in self._groups:
            limit, left = group.read()
            total, available = min(total, limit), min(available, left)
        return MemoryView(total=Bytes(total), available=Bytes(available))

    def close(self) -> None:
        os.close(self._meminfo)
        for group in self._groups:
            group.close()


class _Cgroup:
    """One cgroup v2 with a memory limit. Source: Documentation/admin-guide/cgroup-v2.rst."""

    def __init__(self, limit: int, current: int, stat: int):
        self._limit = limit
        self._current = current
        self._stat = stat

    @classmethod
    def open(cls, path: Path) -> _Cgroup | None:
        """None where the memory controller is not enabled."""
        if not (path / "memory.max").exists():
            return None
        return cls(*(_open(path / f"memory.{name}") for name in ("max", "current", "stat")))

    def read(self) -> tuple[int, int]:
        """(limit, what may still be taken). Page cache counts as free: it goes when asked."""
        word = _text(self._limit).strip()
        if word == "max":
            return 1 << 63, 1 << 63
        cache = _fields(self._stat, separator=" ").get("inactive_file", 0)
        return int(word), max(0, int(word) - int(_text(self._current)) + cache)

    def close(self) -> None:
        for fd in (self._limit, self._current, self._stat):
            os.close(fd)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(f"cannot read {path}: {error.strerror}") from error


def _text(fd: int) -> str:
    return os.pread(fd, 16384, 0).decode()


def _fields(fd: int, *, separator: str) -> dict[str, int]:
    lines = (line.partition(separator) for line in _text(fd).splitlines())
    return {name: int(rest.split()[0]) for name, _, rest in lines if rest.strip()}
