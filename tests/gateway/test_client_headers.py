"""What a client says about itself and the way it came does not reach the engine."""

from __future__ import annotations

from tests.gateway.kit import Rig

ORIGINS = {
    "Forwarded": "for=203.0.113.7",
    "Via": "1.1 203.0.113.7",
    "X-Real-IP": "203.0.113.7",
    "X-Forwarded-For": "203.0.113.7",
    "X-Forwarded-Host": "203.0.113.7",
    "X-Forwarded-Proto": "203.0.113.7",
}


async def test_the_engine_does_not_see_where_a_request_came_from(rig: Rig):
    """Engines believe such headers when they come over a local socket."""
    async with rig.client.post(
        rig.url("/v1/chat/completions"), json={"model": "tiny"}, headers=ORIGINS
    ) as response:
        assert response.status == 200
    assert "203.0.113.7" not in str(rig.upstream.last.headers)


async def test_a_name_of_absurd_length_is_refused_at_once_and_not_echoed(rig: Rig):
    async with rig.chat(model="abc de" * 40_000) as response:
        assert response.status == 404
        body = await response.read()
    assert len(body) < 1000
    assert rig.supervisor.leases == []
