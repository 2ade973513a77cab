"""The same daemon on uvloop, and where uvloop is not installed."""

from __future__ import annotations

import pytest

from tests.daemon.clients import together
from tests.daemon.kit import House


@pytest.mark.parametrize("uvloop", [True, False])
async def test_the_daemon_serves_and_stops_with_and_without_uvloop(house: House, uvloop: bool):
    for name in "ab":
        house.model(name)
    environment = {}
    if not uvloop:
        stub = house.root / "stub"
        stub.mkdir()
        (stub / "uvloop.py").write_text("raise ImportError('not here')\n")
        environment = {"PYTHONPATH": str(stub)}
    daemon = await house.start(environment=environment)
    assert ("uvloop" in _maps(daemon.process.pid)) == uvloop
    streams = await together(*(daemon.streamed("ab"[n % 2], max_tokens=8) for n in range(8)))
    assert all(stream.complete for stream in streams)
    answers = await together(*(daemon.chat("ab"[n % 2], max_tokens=1) for n in range(8)))
    assert [answer.content for answer in answers] == [" t0"] * 8
    assert (await daemon.control("POST", "/models/a/unload", {})).json["unloaded"]
    code, out, _ = await house.sparkctl("status")
    assert code == 0
    assert "b" in out


def _maps(pid: int) -> str:
    with open(f"/proc/{pid}/maps") as file:  # noqa: PTH123
        return file.read()
