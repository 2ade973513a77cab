"""EngineCore that is killed during the start is a loss, whatever its API server still does."""

from __future__ import annotations

import asyncio
import os
import signal
import time

from tests.host.kit import Bench, eventually, fake_model, titled


async def test_a_core_killed_while_starting_is_told_within_two_seconds(bench: Bench):
    engine = await bench.start(fake_model("tiny", "--fake-never-ready"))
    await eventually(lambda: engine._vital._watched)
    (core,) = titled(bench.run_dir, "VLLM::EngineCore")
    os.kill(engine.main_pid, signal.SIGSTOP)  # vLLM's own takes seconds to end on a busy machine
    os.kill(core, signal.SIGKILL)
    killed_at = time.monotonic()
    async with asyncio.timeout(10):
        lost = await engine.wait_lost()
        told_after = time.monotonic() - killed_at
        await engine.wait_gone()
    assert told_after < 2
    assert lost.note == f"EngineCore (pid {core}) ended"
    assert bench.alive() == []
