"""Fixtures for everything that sets a machine up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.provision.kit import FakeUv, Shown, make_fake_uv


@pytest.fixture
def uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeUv:
    """A stand-in for uv, found first on PATH."""
    fake = make_fake_uv(tmp_path / "uv")
    monkeypatch.setenv("PATH", fake.environment["PATH"])
    return fake


@pytest.fixture
def shown(tmp_path: Path) -> Iterator[Shown]:
    screen = Shown(tmp_path / "shown.txt")
    yield screen
    screen.close()
