"""The `host` pool: /proc/meminfo, and a smaller cgroup around the daemon."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from sparkd.core.quantities import GIB, MIB
from sparkd.errors import HostError
from sparkd.host.memory import HostMemoryProbe


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc of a process in /sparkd.slice/sparkd.service, its cgroups beside it."""
    group = tmp_path / "cgroup/sparkd.slice/sparkd.service"
    group.mkdir(parents=True)
    (tmp_path / "self").mkdir()
    (tmp_path / "meminfo").write_text(
        f"MemTotal: {8 * GIB // 1024} kB\nMemFree: 1 kB\nMemAvailable: {6 * GIB // 1024} kB\n"
    )
    (tmp_path / "self/cgroup").write_text("1:cpu:/x\n0::/sparkd.slice/sparkd.service\n")
    (tmp_path / "self/mounts").write_text(
        f"proc /proc proc rw 0 0\ncgroup2 {tmp_path}/cgroup cgroup2 rw 0 0\n"
    )
    return tmp_path


def limit(group: Path, maximum: str, current: int, inactive_file: int = 0) -> None:
    (group / "memory.max").write_text(f"{maximum}\n")
    (group / "memory.current").write_text(f"{current}\n")
    (group / "memory.stat").write_text(f"anon 5\ninactive_file {inactive_file}\nfile 3\n")


async def read(proc: Path):
    probe = await HostMemoryProbe.open(proc=proc)
    try:
        return await probe.read()
    finally:
        probe.close()


async def test_the_machine_is_the_pool():
    probe = await HostMemoryProbe.open()
    try:
        for _ in range(2):  # the same descriptor again
            view = await probe.read()
            real = psutil.virtual_memory()
            assert 0 < view.total <= real.total
            assert view.available <= view.total
            assert view.available < real.available + GIB
    finally:
        probe.close()


async def test_without_a_limit_meminfo_decides(proc: Path):
    limit(proc / "cgroup/sparkd.slice", "max", 5 * GIB)
    view = await read(proc)
    assert (view.total, view.available) == (8 * GIB, 6 * GIB)


@pytest.mark.parametrize("group", ["sparkd.slice", "sparkd.slice/sparkd.service"])
async def test_a_smaller_cgroup_is_the_pool_wherever_it_is_above(proc: Path, group: str):
    limit(proc / "cgroup" / group, str(4 * GIB), 3 * GIB, 512 * MIB)
    view = await read(proc)
    assert (view.total, view.available) == (4 * GIB, 1 * GIB + 512 * MIB)


async def test_a_full_cgroup_has_nothing_left(proc: Path):
    limit(proc / "cgroup/sparkd.slice", str(4 * GIB), 4 * GIB + 1)
    assert (await read(proc)).available == 0


async def test_a_larger_cgroup_changes_nothing(proc: Path):
    limit(proc / "cgroup/sparkd.slice", str(64 * GIB), 1)
    view = await read(proc)
    assert (view.total, view.available) == (8 * GIB, 6 * GIB)


def test_a_missing_meminfo_is_a_clear_error(proc: Path):
    (proc / "meminfo").unlink()
    with pytest.raises(HostError, match=r"cannot read .*meminfo"):
        HostMemoryProbe(proc)
