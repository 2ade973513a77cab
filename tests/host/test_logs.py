"""Logs: lines, rings, files that rotate, followers, and a disk that refuses."""
# ruff: noqa: ASYNC240  a test may block its loop

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from sparkd.core.catalogue import ModelId
from sparkd.host import logs as module
from sparkd.host.logs import LineSplitter, LogStore

M = ModelId("org/tiny")


def split(*chunks: bytes) -> list[str]:
    splitter = LineSplitter()
    return [line for chunk in chunks for line in splitter.feed(chunk)] + splitter.end()


def test_lines_are_put_together_from_any_pieces():
    data = "eins\nzwei ü\r\n\n drei".encode()
    for size in range(1, len(data)):
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        assert split(*pieces) == ["eins", "zwei ü", " drei"]


def test_a_progress_bar_is_lines():
    assert split(b"\r 0%|", b"\r 50%|\r100%|\n") == [" 0%|", " 50%|", "100%|"]


def test_long_lines_are_cut_and_take_no_memory():
    splitter = LineSplitter()
    lines = [line for _ in range(100) for line in splitter.feed(b"x" * 4096)]
    assert len(splitter._rest) <= 8192
    assert lines + splitter.feed(b"y\nshort\n") == ["x" * 8191 + "…", "short"]


def test_undecodable_bytes_are_replaced():
    assert split(b"a\xff\xfeb\n\xc3") == ["a��b", "�"]


async def test_the_file_gets_what_the_ring_gets(tmp_path: Path):
    store = LogStore(tmp_path, ring_lines=3)
    for number in range(5):
        store.append(M, f"line {number}")
    assert await store.tail(M, 2) == ("line 3", "line 4")
    assert await store.tail(M, 5) == tuple(f"line {n}" for n in range(5))
    assert await store.tail(M, 0) == ()
    await store.close()
    assert (tmp_path / "org%2Ftiny.log").read_text().splitlines() == [f"line {n}" for n in range(5)]


async def test_the_tail_survives_the_daemon(tmp_path: Path):
    first = LogStore(tmp_path)
    first.append(M, "before")
    await first.close()
    second = LogStore(tmp_path)
    assert await second.tail(M) == ("before",)
    second.append(M, "after")
    assert await second.tail(M) == ("before", "after")
    await second.close()


async def test_files_are_rotated_and_two_are_kept(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(module, "_FILE_LIMIT", 1000)
    store = LogStore(tmp_path, ring_lines=1)
    for number in range(10):
        store.append(M, f"{number}" * 400)
        await store.tail(M, 2)  # writes
    assert await store.tail(M, 4) == tuple(f"{n}" * 400 for n in (6, 7, 8, 9))
    await store.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "org%2Ftiny.log",
        "org%2Ftiny.log.1",
    ]


async def test_a_follower_hears_what_comes_and_is_let_go(tmp_path: Path):
    store = LogStore(tmp_path)
    store.append(M, "before")
    heard = []
    with store.follow(M) as lines:
        store.append(M, "one")
        store.append(M, "two")
        await store.close()
        heard = [line async for line in lines]
    assert heard == ["one", "two"]
    assert store._log_of(M)._followers == []


async def test_a_follower_waits_for_the_next_line(tmp_path: Path):
    store = LogStore(tmp_path)
    heard = []
    with store.follow(M) as lines:

        async def hear_one() -> None:
            heard.append(await anext(lines))

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(hear_one(), name="follow")
            await asyncio.sleep(0)
            store.append(M, "now")
        assert heard == ["now"]
    await store.close()


async def test_a_slow_follower_misses_the_oldest_and_is_told_so(tmp_path: Path):
    store = LogStore(tmp_path)
    with store.follow(M) as lines:
        for number in range(2005):
            store.append(M, str(number))
        assert "5 lines were dropped" in await anext(lines)
        assert await anext(lines) == "5"
    await store.close()


async def test_a_refusing_disk_is_warned_of_once_and_the_ring_goes_on(tmp_path: Path, caplog):
    (tmp_path / "logs").write_text("not a directory")
    store = LogStore(tmp_path / "logs")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            store.append(M, "line")
            await store._log_of(M)._writer.flush()
    assert len([r for r in caplog.records if "it goes on in memory" in r.message]) == 1
    assert await store.tail(M, 3) == ("line",) * 3
    await store.close()


async def test_lines_that_wait_for_a_slow_disk_are_bounded(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(module, "_PENDING_LIMIT", 1000)
    store = LogStore(tmp_path, ring_lines=1)
    for number in range(100):
        store.append(M, f"{number:03}" + "x" * 96)
    assert store._log_of(M)._writer._waiting_bytes <= 1000
    kept = await store.tail(M, 100)
    assert [line[:3] for line in kept] == [f"{n:03}" for n in range(90, 100)]
    await store.close()


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "..", "ü"])
async def test_no_model_name_leaves_the_directory(tmp_path: Path, name: str):
    store = LogStore(tmp_path / "logs")
    store.append(ModelId(name), "x")
    await store.close()
    assert len(list((tmp_path / "logs").iterdir())) == 1
    assert len(list(tmp_path.iterdir())) == 1


async def test_a_line_printed_while_the_file_is_read_belongs_to_the_tail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Else it would be lost to who follows from there."""
    store = LogStore(tmp_path, ring_lines=2)
    for number in range(5):
        store.append(M, f"line {number}")
    loop, read = asyncio.get_running_loop(), module._last_lines

    def slowly(path: Path, lines: int) -> tuple[str, ...]:
        found = read(path, lines)
        printed = asyncio.run_coroutine_threadsafe(asyncio.to_thread(lambda: None), loop)
        loop.call_soon_threadsafe(store.append, M, "line 5")
        printed.result()
        return found

    monkeypatch.setattr(module, "_last_lines", slowly)
    assert await store.tail(M, 4) == ("line 2", "line 3", "line 4", "line 5")
    await store.close()
    written = await asyncio.to_thread(read, tmp_path / "org%2Ftiny.log", 9)
    assert written[-1] == "line 5"
