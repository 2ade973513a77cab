"""Faults of our own code in the critical section: they are heard of, and hold up nobody else."""

from __future__ import annotations

import asyncio

import pytest

from sparkd.core.catalogue import ModelId
from sparkd.core.fleet import Fleet
from sparkd.core.instance import Reason
from sparkd.core.planner import Settled, settle
from sparkd.core.quantities import Instant, Seconds
from sparkd.supervisor import owner
from sparkd.supervisor.owner import Supervisor
from tests.supervisor.fakes import make_supervisor, model
from tests.virtual_time import run_virtual


async def hold(supervisor: Supervisor, name: str, told: list[Reason]) -> None:
    """A request that ends when it is told that its instance stops; then it fails to cope."""
    left = asyncio.Event()

    def revoked(reason: Reason) -> None:
        told.append(reason)
        left.set()
        raise RuntimeError("a fault of a callback")

    async with supervisor.lease(ModelId(name)) as lease:
        lease.on_revoke(revoked)
        await lease.granted()
        await left.wait()


def test_a_callback_that_fails_keeps_no_engine_from_being_stopped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        supervisor, launcher = make_supervisor(model("a"), model("b"))
        told: list[Reason] = []
        async with supervisor, asyncio.TaskGroup() as group:
            for name in ("a", "a", "b"):
                group.create_task(hold(supervisor, name, told), name=f"hold {name}")
            await asyncio.sleep(30)
            assert len(launcher.running) == 2
            await supervisor.shut_down(Seconds(1.0))
            assert not launcher.running
            assert told == [Reason.SHUTDOWN] * 3
            assert not supervisor.fleet.instances

    run_virtual(main())
    assert "a fault of a callback" in caplog.text


def test_a_fault_that_the_timer_meets_ends_the_supervisor_instead_of_its_timer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    faulty = False

    def settle_or_fail(fleet: Fleet, now: Instant) -> Settled:
        if faulty:
            raise RuntimeError("the rules did not settle")
        return settle(fleet, now)

    async def main() -> None:
        nonlocal faulty
        supervisor, launcher = make_supervisor(model("a"))
        async with supervisor:
            await supervisor.load(ModelId("a"), wait=True)
            await asyncio.sleep(1)
            faulty = True
            await asyncio.sleep(10_000)  # longer than keep-alive: its timer rings meanwhile
        assert not launcher.running, "nobody heard of it, and it ended as if all were well"

    monkeypatch.setattr(owner, "settle", settle_or_fail)
    with pytest.raises(BaseExceptionGroup) as caught:
        run_virtual(main())
    assert caught.group_contains(RuntimeError, match="did not settle")
