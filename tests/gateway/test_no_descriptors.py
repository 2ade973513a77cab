"""What this machine refuses to the gateway is no fault of an engine."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

from tests.gateway.kit import Rig, error_of


@contextmanager
def no_more_files() -> Iterator[None]:
    """Nothing can be opened: the limit is the lowest number that is free."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_a_machine_without_a_free_descriptor_is_a_503_and_suspects_no_engine(rig: Rig):
    async with rig.client.get(rig.url("/healthz")) as response:  # this connection is used again
        assert response.status == 200
    with no_more_files():
        async with rig.chat() as response:
            assert response.status == 503
            assert response.headers["Retry-After"]
            assert error_of(await response.read())["code"] == "host_error"
    assert rig.supervisor.questions == 0
    async with rig.chat() as response:
        assert response.status == 200
    assert all(lease.left.is_set() for lease in rig.supervisor.leases)
