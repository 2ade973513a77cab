"""A house for each test; whatever a test did, nothing may be left in it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.daemon.kit import House
from tests.host.kit import short_directory


@pytest.fixture
async def house() -> AsyncIterator[House]:
    with short_directory() as root:
        one = House(root)
        try:
            yield one
        finally:
            await one.close()
