"""The lines of an engine are read for phases while it starts, and not after."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from sparkd.core.catalogue import ModelId
from tests.supervisor.fakes import make_supervisor, model
from tests.virtual_time import run_virtual


def test_the_lines_of_a_ready_engine_are_not_searched_for_phases() -> None:
    """It prints one per request: the search would cost as much as forwarding it."""
    searched: list[str] = []

    def phase_of(line: str) -> str:
        searched.append(line)
        return line

    async def main() -> None:
        supervisor, launcher = make_supervisor(model("a"))
        supervisor._machine = replace(supervisor._machine, phase_of=phase_of)
        async with supervisor:
            async with asyncio.TaskGroup() as group:
                group.create_task(supervisor.load(ModelId("a"), wait=True), name="load")
                await asyncio.sleep(5)
                (sink,) = launcher.sinks.values()
                sink("loading weights")
                assert supervisor.progress(ModelId("a")).phase == "loading weights"
            sink("POST /v1/completions 200")
            assert searched == ["loading weights"]

    run_virtual(main())
