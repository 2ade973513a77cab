"""Pinned models, and exclusive ones that make them step back."""

from __future__ import annotations

import os
import signal

from tests.daemon.kit import House


async def test_a_pinned_model_starts_with_the_daemon_and_returns_after_it_was_killed(
    house: House,
):
    house.model("always", role="pinned", lifecycle={"keep_alive": "200ms"})
    daemon = await house.start()
    await daemon.until_ready("always")
    parts = await daemon.parts("always")
    os.kill(parts.server, signal.SIGKILL)
    await parts.until_gone()
    await daemon.until_ready("always")
    assert house.starts() == ["always", "always"]
    assert (await daemon.chat("always")).status == 200


async def test_an_exclusive_model_runs_alone_and_pinned_ones_return_after_it(house: House):
    house.model("always", role="pinned")
    house.model("other")
    house.model("alone", role="exclusive", lifecycle={"keep_alive": "300ms"})
    daemon = await house.start()
    await daemon.until_ready("always")
    await daemon.chat("other")
    async with daemon.stream("alone", max_tokens=10, fake_token_delay=0.05) as stream:
        await stream.read(2)
        assert await daemon.states() == {"alone": "ready"}
        await stream.to_end()
    assert stream.complete
    await daemon.until(lambda states: states == {"always": "ready"})
    assert house.starts() == ["always", "other", "alone", "always"]
