"""A reload that fails in a way nobody foresaw ends no answer that is under way."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sparkd import config
from sparkd.daemon import Daemon


async def test_an_unforeseen_fault_of_a_reload_is_logged_and_the_next_one_is_heard(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
):
    tried = asyncio.Event()

    async def no_thread(*_: object) -> None:
        tried.set()
        raise RuntimeError("can't start new thread")

    (tmp_path / "models").mkdir()
    file = tmp_path / "sparkd.toml"
    file.write_text(f'paths.models = ["{tmp_path / "models"}"]\n')
    daemon = Daemon(config.load(file), file)
    monkeypatch.setattr(daemon, "reload", no_thread)
    async with asyncio.TaskGroup() as group:
        reloads = group.create_task(daemon._reload_on_signal(), name="reloads")
        for _ in range(2):
            tried.clear()
            daemon._reload_asked.set()
            async with asyncio.timeout(5):
                await tried.wait()
        reloads.cancel()
    assert caplog.text.count("Cannot read the configuration again") == 2
