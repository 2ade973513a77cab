"""Finding and watching what an engine cannot live without: nothing twice, no descriptor lost."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from sparkd.host import pidfds
from tests.host.kit import Bench, eventually, open_files, so_many_descriptors

#: 15 is PR_SET_NAME. Its arguments do not show the title, as those of a process that has ended.
_NAMED = "import ctypes; ctypes.CDLL(None).prctl(15, b'VLLM::EngineCor'); print(flush=True)"


@contextlib.contextmanager
def named_core(then: str = "") -> Iterator[int]:
    command = [sys.executable, "-S", "-c", f"{_NAMED}; {then}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as core:
        assert core.stdout is not None
        core.stdout.readline()
        try:
            yield core.pid
        finally:
            core.kill()


def found_here() -> list[pidfds.Watched]:
    """None if no descriptor is free. Other tests' orphans may be among them."""
    found = []
    with contextlib.suppress(OSError):
        found = pidfds.find_vital(os.getpid())
    for one in found:
        os.close(one.pidfd)
    return found


async def test_a_second_search_finds_the_same_and_holds_no_second_descriptor(bench: Bench):
    engine = await bench.ready()
    before = open_files()
    engine.watch_vital()
    await eventually(lambda: not engine._searches)
    assert open_files() == before
    assert len(engine._vital._watched) == 1


def test_an_engine_core_that_has_ended_already_is_named_in_full():
    with named_core() as pid:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert [one.title for one in found_here() if one.pid == pid] == ["EngineCore"]


@pytest.mark.parametrize("spare", [0, 1, 2, 100])
def test_a_search_without_free_descriptors_loses_none(spare: int):
    with named_core("import signal; signal.pause()") as pid:
        before = open_files()
        with so_many_descriptors(spare):
            found = found_here()
        assert open_files() == before
        assert spare < 100 or pid in [one.pid for one in found]
