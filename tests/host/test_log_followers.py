"""No line is lost between the tail of a log and the lines that follow it."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from sparkd.core.catalogue import ModelId
from sparkd.host import logs as module
from sparkd.host.logs import LogStore

M = ModelId("m")


async def test_a_line_printed_while_the_file_is_read_is_in_the_tail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Whoever follows begins when the tail returns: what is in neither is lost."""
    loop, printed = asyncio.get_running_loop(), threading.Event()
    original = module._last_lines

    def print_meanwhile() -> None:
        store.append(M, "meanwhile")
        printed.set()

    def read(path: Path, lines: int) -> tuple[str, ...]:
        found = original(path, lines)
        loop.call_soon_threadsafe(print_meanwhile)
        assert printed.wait(5)
        return found

    store = LogStore(tmp_path, ring_lines=2)
    for number in range(5):
        store.append(M, str(number))
    await store._log_of(M)._writer.flush()
    monkeypatch.setattr(module, "_last_lines", read)
    assert await store.tail(M, 100) == ("0", "1", "2", "3", "4", "meanwhile")
    await store.close()
    assert (tmp_path / "m.log").read_text() == "0\n1\n2\n3\n4\nmeanwhile\n"


async def test_a_close_waits_for_a_reader_and_writes_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    loop, reading, may_go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def read(path: Path, lines: int) -> tuple[str, ...]:
        loop.call_soon_threadsafe(reading.set)
        assert may_go_on.wait(5)
        return ()

    monkeypatch.setattr(module, "_last_lines", read)
    store = LogStore(tmp_path, ring_lines=1)
    store.append(M, "0")
    async with asyncio.TaskGroup() as group:
        tail = group.create_task(store.tail(M, 10), name="tail")
        await reading.wait()
        closing = group.create_task(store.close(), name="close")
        await asyncio.sleep(0)
        assert not closing.done()
        may_go_on.set()
    assert tail.result() == ("0",)
    assert (tmp_path / "m.log").read_text() == "0\n"


async def test_a_disk_that_refuses_leaves_the_last_lines_readable(tmp_path: Path):
    (tmp_path / "logs").write_text("not a directory")
    store = LogStore(tmp_path / "logs")
    store.append(M, "a line")
    await store._log_of(M)._writer.flush()
    assert await store.tail(M, 1000) == ("a line",)
    await store.close()
