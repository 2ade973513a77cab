"""By which names the daemon may be called."""

from __future__ import annotations

import pytest

from tests.gateway.kit import Rig, error_of


async def status_for(rig: Rig, host: str) -> tuple[int, bytes]:
    status, _, body = await rig.raw(b"GET /healthz HTTP/1.1\r\nHost: %s\r\n\r\n" % host.encode())
    return status, body


@pytest.mark.parametrize("host", ["127.0.0.2:8009", "127.1.2.3", "[::1]:8009", "LocalHost"])
async def test_every_loopback_address_is_a_name_of_the_daemon(rig: Rig, host: str):
    """The configuration lets it listen on any of them; an address cannot be rebound as a name."""
    assert (await status_for(rig, host))[0] == 200


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1.evil.example", "128.0.0.1", "[::2]", "0.0.0.0", "2130706433", "0x7f000001", "[::1"],
)
async def test_what_only_looks_like_one_is_not(rig: Rig, host: str):
    status, body = await status_for(rig, host)
    assert status == 403
    assert "configuration" not in error_of(body)["message"], "there is no such setting"
