"""Cancellation as a subject of its own: at each await of a lease, nothing is left behind."""

from __future__ import annotations

import asyncio

import pytest

from sparkd.core.catalogue import ModelId
from sparkd.core.instance import State
from sparkd.core.quantities import Seconds
from sparkd.supervisor.owner import Supervisor
from sparkd.supervisor.ports import EngineExit
from tests.supervisor.fakes import FakeLauncher, make_supervisor, model
from tests.virtual_time import run_virtual


async def use(supervisor: Supervisor) -> None:
    async with supervisor.lease(ModelId("a")) as lease:
        await lease.granted()
        await asyncio.sleep(5)


def in_flight(supervisor: Supervisor) -> int:
    return sum(i.in_flight for i in supervisor.fleet.instances.values())


@pytest.mark.parametrize(
    "moment", [0.0, 0.005, 0.02, 5.0, 9.99, 10.01, 10.0105, 12.0], ids=lambda m: f"after {m} s"
)
def test_a_client_that_goes_at_any_moment_leaves_nothing(moment: float) -> None:
    async def main() -> None:
        supervisor, _ = make_supervisor(model("a"))
        async with supervisor:
            task = asyncio.get_running_loop().create_task(use(supervisor))
            await asyncio.sleep(moment)
            task.cancel("the client went")
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not supervisor.fleet.tickets
            assert not supervisor._leases
            assert in_flight(supervisor) == 0

    run_virtual(main())


def test_a_grant_that_races_with_the_cancellation_is_given_back() -> None:
    async def main() -> None:
        supervisor, _ = make_supervisor(model("a"))
        async with supervisor:
            task = asyncio.get_running_loop().create_task(use(supervisor))
            while in_flight(supervisor) == 0:
                await asyncio.sleep(0)  # one turn of the loop: the very turn is the subject
                if not any(i.state is State.READY for i in supervisor.fleet.instances.values()):
                    await asyncio.sleep(0.5)
            task.cancel("in the same turn of the loop as the grant")
            with pytest.raises(asyncio.CancelledError):
                await task
            assert in_flight(supervisor) == 0
            (instance,) = supervisor.fleet.instances.values()
            assert instance.idle_since is not None

    run_virtual(main())


def test_a_stop_that_comes_before_the_engine_exists_is_carried_out_once_it_does() -> None:
    async def main() -> None:
        supervisor, launcher = make_supervisor(model("a"))
        async with supervisor:
            await supervisor.load(ModelId("a"), wait=False)
            await asyncio.sleep(0.005)
            assert supervisor.fleet.instances
            assert launcher.launched == []
            await supervisor.unload(ModelId("a"), now=True, wait=True)
            assert launcher.launched[0].stopped_with == [5.0]
            assert launcher.running == []

    run_virtual(main())


def test_a_lease_learns_that_its_engine_is_lost_and_the_next_one_gets_a_new_engine() -> None:
    async def main() -> None:
        supervisor, launcher = make_supervisor(model("a"))
        async with supervisor:
            async with supervisor.lease(ModelId("a")) as lease:
                first = await lease.granted()
                assert first is not None
                assert not await lease.lost(within=1)
                launcher.engine_of("a").die(EngineExit(signal=9))
                assert await lease.lost(within=1)
            async with supervisor.lease(ModelId("a")) as lease:
                second = await lease.granted()
                assert second is not None
                assert second.instance != first.instance

    run_virtual(main())


def test_a_fault_in_one_life_ends_as_a_failure_of_that_model_only() -> None:
    class Broken(FakeLauncher):
        async def wait_ready(self, upstream: object, model: object) -> None:
            if getattr(model, "id", "") == "a":
                raise RuntimeError("a bug in the probe")
            await asyncio.sleep(10)

    async def main() -> None:
        supervisor, launcher = make_supervisor(model("a"), model("b"), launcher=Broken())
        async with supervisor:
            with pytest.raises(Exception, match="internal error"):
                await use(supervisor)
            async with supervisor.lease(ModelId("b")) as lease:
                assert await lease.granted() is not None
            assert [e.model for e in launcher.running] == ["b"]

    run_virtual(main())


def test_a_second_shorter_shutdown_hurries_the_first() -> None:
    async def main() -> None:
        supervisor, _ = make_supervisor(model("a"))
        async with supervisor, asyncio.TaskGroup() as group:
            group.create_task(_until_lost(supervisor))
            await asyncio.sleep(11)
            began = supervisor.now()
            patient = group.create_task(supervisor.shut_down(Seconds(600.0)))
            await asyncio.sleep(1)
            await supervisor.shut_down(Seconds(2.0))
            await patient
            assert supervisor.now() - began < 6

    run_virtual(main())


async def _until_lost(supervisor: Supervisor) -> None:
    async with supervisor.lease(ModelId("a")) as lease:
        await lease.granted()
        await lease.lost(within=10_000)
