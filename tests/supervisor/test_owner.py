"""The supervisor with engines that are not there, in virtual time: who is served when."""

from __future__ import annotations

import asyncio

import pytest

from sparkd.core.catalogue import Catalogue, Lifecycle, ModelId, QueuePolicy, Role
from sparkd.core.instance import Reason, State
from sparkd.core.memory import Pool
from sparkd.core.quantities import GIB, Bytes, Seconds
from sparkd.core.status import ModelState
from sparkd.errors import (
    HostError,
    ModelUnavailableError,
    ModelUnloadedError,
    NeverFitsError,
    ShuttingDownError,
    StartFailedError,
    StartTimeoutError,
)
from sparkd.supervisor.owner import Supervisor
from sparkd.supervisor.ports import EngineExit
from tests.supervisor.fakes import FakeEngine, FakeLauncher, FakeProbe, make_supervisor, model
from tests.virtual_time import run_virtual

SHORT = Lifecycle(keep_alive=Seconds(6.0), min_residency=Seconds(0.0))


async def ask(supervisor: Supervisor, name: str, seconds: float = 1.0) -> float:
    """One request that is answered in `seconds`; returns when its grant came."""
    async with supervisor.lease(ModelId(name)) as lease:
        assert await lease.granted() is not None
        at = supervisor.now()
        await asyncio.sleep(seconds)
        return at


def has_timer(supervisor: Supervisor) -> bool:
    return supervisor._timer is not None


def test_a_request_for_a_cold_model_starts_it_and_is_granted_when_it_is_ready() -> None:
    async def main() -> None:
        supervisor, launcher = make_supervisor(model("a"))
        async with supervisor:
            asked = supervisor.now()
            async with supervisor.lease(ModelId("a")) as lease:
                assert await lease.granted(within=5) is None
                assert lease.progress().state is ModelState.STARTING
                grant = await lease.granted()
                assert grant is not None
                assert grant.cold
                assert grant.upstream == launcher.engine_of("a").upstream
                assert 10 <= supervisor.now() - asked < 10.1
                assert launcher.engine_of("a").vital_watched
            async with supervisor.lease(ModelId("a")) as lease:
                grant = await lease.granted()
                assert grant is not None
                assert not grant.cold
                assert not lease.waited
        assert launcher.running == []

    run_virtual(main())


def test_fifty_requests_to_one_cold_model_make_one_start() -> None:
    async def main() -> None:
        supervisor, launcher = make_supervisor(model("a"))
        async with supervisor:
            async with asyncio.TaskGroup() as group:
                asks = [group.create_task(ask(supervisor, "a")) for _ in range(50)]
            assert len({t.result() for t in asks}) == 1
            assert launcher.names() == ["a"]

    run_virtual(main())


def test_a_burst_over_three_models_of_which_two_fit_starts_each_once() -> None:
    async def main() -> None:
        supervisor, launcher = make_supervisor(
            model("a", 4), model("b", 4), model("c", 4), limit_gib=10
        )
        async with supervisor:
            async with asyncio.TaskGroup() as group:
                for index in range(20):
                    group.create_task(ask(supervisor, "abc"[index % 3], seconds=3))
            assert launcher.names() == ["a", "b", "c"]

    run_virtual(main())


def test_two_cold_models_that_do_not_fit_together_follow_each_other_within_a_second() -> None:
    async def main() -> None:
        supervisor, launcher = make_supervisor(model("a", 6), model("b", 6), limit_gib=10)
        async with supervisor:
            begun: dict[str, float] = {}

            def note(engine: FakeEngine) -> None:
                begun[engine.model] = supervisor.now()

            launcher.on_launch = note
            async with asyncio.TaskGroup() as group:
                first = group.create_task(ask(supervisor, "a", seconds=0.0))
                group.create_task(ask(supervisor, "b", seconds=0.0))
            stopped = first.result() + launcher.stop_seconds
            assert stopped <= begun["b"] <= stopped + 1

    run_virtual(main())


def test_two_cold_models_that_fit_start_beside_each_other() -> None:
    async def main() -> None:
        supervisor, _ = make_supervisor(model("a", 4), model("b", 4), limit_gib=10)
        async with supervisor:
            asked = supervisor.now()
            async with asyncio.TaskGroup() as group:
                asks = [group.create_task(ask(supervisor, name)) for name in "ab"]
            assert all(t.result() - asked < 11 for t in asks)

    run_virtual(main())


def test_a_warm_request_never_waits_behind_a_cold_start() -> None:
    async def main() -> None:
        supervisor, _ = make_supervisor(model("a", 4), model("b", 8), limit_gib=10)
        async with supervisor:
            await ask(supervisor, "a")
            async with asyncio.TaskGroup() as group:
                long = group.create_task(ask(supervisor, "a", seconds=30))
                cold = group.create_task(ask(supervisor, "b"))
                await asyncio.sleep(1)
                asked = supervisor.now()
                assert await ask(supervisor, "a") == asked
            assert cold.result() >= long.result() + 30

    run_virtual(main())


def test_a_stream_three_times_longer_than_keep_alive_is_never_cut() -> None:
    async def main() -> None:
        supervisor, launcher = make_supervisor(model("a", lifecycle=SHORT))
        async with supervisor:
            await ask(supervisor, "a", seconds=18)
            engine = launcher.engine_of("a")
            assert engine.stopped_with == []
            await asyncio.sleep(5.9)
            assert engine.stopped_with == []
            await asyncio.sleep(0.2)
            assert engine.stopped_with == [20.0]

    run_virtual(main())


def test_overlapping_workers_on_a_short_keep_alive_never_see_a_stop() -> None:
    async def worker(supervisor: Supervisor, until: float, pace: float) -> None:
        while supervisor.now() < until:
            await ask(supervisor, "a", seconds=pace)
            await asyncio.sleep(pace / 2)

    async def main() -> None:
        supervisor, launcher = make_supervisor(model("a", lifecycle=SHORT))
        async with supervisor:
            await ask(supervisor, "a")
            until = supervisor.now() + 60
            async with asyncio.TaskGroup() as group:
                for index in range(6):
                    group.create_task(worker(supervisor, until, 1.0 + index))
            assert launcher.names() == ["a"]
            assert launcher.engine_of("a").stopped_with == []

    run_virtual(main())


def test_a_busy_model_is_drained_for_one_that_waited_longer_than_its_patience() -> None:
    patient = QueuePolicy(patience=Seconds(20.0))

    async def keep_busy(supervisor: Supervisor, until: float) -> None:
        while supervisor.now() < until:
            await ask(supervisor, "a", seconds=2)

    async def main() -> None:
        supervisor, launcher = make_supervisor(
            model("a", 6), model("b", 6, queue=patient), limit_gib=10
        )
        async with supervisor:
            await ask(supervisor, "a")
            await asyncio.sleep(100)
            async with asyncio.TaskGroup() as group:
                asked = supervisor.now()
                group.create_task(keep_busy(supervisor, asked + 60))
                group.create_task(keep_busy(supervisor, asked + 60))
                served = await ask(supervisor, "b")
                assert asked + 20 < served < asked + 20 + 2 + 2 + 10 + 1
            assert sorted(launcher.names()) == ["a", "a", "b"]

    run_virtual(main())


def test_an_engine_that_dies_while_loading_fails_its_waiters_at_once() -> None:
    async def main() -> None:
        supervisor, launcher = make_supervisor(model("a"))
        async with supervisor:
            async with supervisor.lease(ModelId("a")) as lease:
                assert await lease.granted(within=3) is None
                died = supervisor.now()
                launcher.engine_of("a").die(EngineExit(exit_status=0))
                with pytest.raises(StartFailedError) as caught:
                    await lease.granted()
                assert supervisor.now() - died < 0.1
                assert caught.value.log_tail[-1] == "ValueError: the cause"
                assert "exit status 0" in caught.value.message
            assert await ask(supervisor, "a") > died

    run_virtual(main())


def test_a_model_that_cannot_be_launched_fails_its_waiters_and_is_forgotten_by_the_next_load() -> (
    None
):
    async def main() -> None:
        launcher = FakeLauncher(refusals={"a": HostError("cannot execute it", hint="mend it")})
        supervisor, _ = make_supervisor(model("a"), launcher=launcher)
        async with supervisor:
            with pytest.raises(StartFailedError, match="launch_failed"):
                await ask(supervisor, "a")
            assert not supervisor.fleet.instances
            launcher.refusals.clear()
            asked = supervisor.now()
            await supervisor.load(ModelId("a"), wait=True)
            assert supervisor.now() - asked < 10.1

    run_virtual(main())


def test_a_start_that_takes_too_long_is_stopped_and_said_so() -> None:
    async def main() -> None:
        launcher = FakeLauncher(start_seconds={"a": 1e9})
        slow = Lifecycle(start_timeout=Seconds(30.0))
        supervisor, _ = make_supervisor(model("a", lifecycle=slow), launcher=launcher)
        async with supervisor:
            asked = supervisor.now()
            with pytest.raises(StartTimeoutError, match="not ready after 30s"):
                await ask(supervisor, "a")
            assert 30 <= supervisor.now() - asked < 30.1
            assert launcher.launched[0].stopped_with == [5.0]

    run_virtual(main())


def test_missing_weights_are_told_before_anything_is_scheduled_or_evicted() -> None:
    async def main() -> None:
        error = ModelUnavailableError("cannot find the weights", hint="pull them")
        launcher = FakeLauncher(missing={"b": error})
        supervisor, _ = make_supervisor(model("a", 6), model("b", 6), launcher=launcher)
        async with supervisor:
            await ask(supervisor, "a")
            with pytest.raises(ModelUnavailableError):
                await ask(supervisor, "b")
            assert launcher.engine_of("a").stopped_with == []
            assert not supervisor.fleet.tickets

    run_virtual(main())


def test_a_model_larger_than_the_pool_is_refused_at_once() -> None:
    async def main() -> None:
        supervisor, _ = make_supervisor(model("a", 11), limit_gib=10)
        async with supervisor:
            with pytest.raises(NeverFitsError):
                await ask(supervisor, "a")

    run_virtual(main())


def test_a_start_waits_until_the_machine_has_the_memory_and_rereads_it() -> None:
    async def main() -> None:
        probe = FakeProbe(available=2 * GIB)
        supervisor, launcher = make_supervisor(model("a", 4), probe=probe)
        async with supervisor, supervisor.lease(ModelId("a")) as lease:
            assert await lease.granted(within=30) is None
            assert launcher.launched == []
            assert 25 <= probe.reads <= 35
            probe.available = 50 * GIB
            assert await lease.granted(within=12) is not None

    run_virtual(main())


def test_a_probe_that_fails_never_counts_as_free_memory() -> None:
    async def main() -> None:
        probe = FakeProbe(fails=True)
        supervisor, launcher = make_supervisor(model("a", 4), probe=probe)
        async with supervisor, supervisor.lease(ModelId("a")) as lease:
            assert await lease.granted(within=30) is None
            assert launcher.launched == []
            probe.fails = False
            assert await lease.granted(within=12) is not None

    run_virtual(main())


def test_unload_while_starting_refuses_the_waiters_and_ends_in_the_short_grace() -> None:
    async def main() -> None:
        supervisor, launcher = make_supervisor(model("a"))
        async with supervisor:
            async with supervisor.lease(ModelId("a")) as lease:
                assert await lease.granted(within=3) is None
                assert await supervisor.unload(ModelId("a"), now=False, wait=True)
                with pytest.raises(ModelUnloadedError):
                    await lease.granted()
            assert launcher.launched[0].stopped_with == [5.0]
            assert not supervisor.fleet.instances
            assert not await supervisor.unload(ModelId("a"), now=False, wait=True)

    run_virtual(main())


def test_unload_waits_for_running_answers_but_now_does_not() -> None:
    async def main() -> None:
        supervisor, launcher = make_supervisor(model("a"))
        async with supervisor, asyncio.TaskGroup() as group:
            running = group.create_task(ask(supervisor, "a", seconds=20))
            await asyncio.sleep(15)
            unloading = group.create_task(supervisor.unload(ModelId("a"), now=False, wait=True))
            await asyncio.sleep(1)
            assert launcher.engine_of("a").stopped_with == []
            assert await supervisor.unload(ModelId("a"), now=True, wait=True)
            assert not running.done()
            assert await unloading

    run_virtual(main())


def test_load_without_waiting_starts_the_model_and_leaves_it_idle() -> None:
    async def main() -> None:
        supervisor, launcher = make_supervisor(model("a"))
        async with supervisor:
            await supervisor.load(ModelId("a"), wait=False)
            assert supervisor.progress(ModelId("a")).state is not ModelState.COLD
            await asyncio.sleep(11)
            (instance,) = supervisor.fleet.instances.values()
            assert (instance.state, instance.in_flight) == (State.READY, 0)
            assert launcher.names() == ["a"]

    run_virtual(main())


def test_a_load_whose_operator_left_goes_on() -> None:
    async def main() -> None:
        supervisor, launcher = make_supervisor(model("a", 6), model("b", 6), limit_gib=10)
        async with supervisor, asyncio.TaskGroup() as group:
            group.create_task(ask(supervisor, "a", seconds=30))
            await asyncio.sleep(1)
            load = group.create_task(supervisor.load(ModelId("b"), wait=True))
            await asyncio.sleep(1)
            load.cancel("the operator left")
            await asyncio.sleep(60)
            assert launcher.names() == ["a", "b"]

    run_virtual(main())


def test_pinned_models_start_with_the_supervisor_and_return_when_they_die() -> None:
    async def main() -> None:
        supervisor, launcher = make_supervisor(model("p", role=Role.PINNED))
        async with supervisor:
            supervisor.begin()
            await asyncio.sleep(11)
            launcher.engine_of("p").die(EngineExit(exit_status=0))
            await asyncio.sleep(2.0 + 1.0 + 11)
            assert launcher.names() == ["p", "p"]
            assert len(supervisor.fleet.instances) == 1

    run_virtual(main())


def test_an_exclusive_model_runs_alone_and_pinned_ones_return_after_it() -> None:
    async def main() -> None:
        supervisor, launcher = make_supervisor(
            model("p", 2, role=Role.PINNED),
            model("x", 3, role=Role.EXCLUSIVE, lifecycle=SHORT),
            limit_gib=10,
        )
        async with supervisor:
            supervisor.begin()
            await asyncio.sleep(11)
            await ask(supervisor, "x")
            assert [e.model for e in launcher.running] == ["x"]
            await asyncio.sleep(6 + 2 + 11)
            assert [e.model for e in launcher.running] == ["p"]

    run_virtual(main())


def test_a_reload_restarts_only_what_changed_and_only_after_its_answers_ended() -> None:
    async def main() -> None:
        supervisor, launcher = make_supervisor(model("a"), model("b"))
        async with supervisor, asyncio.TaskGroup() as group:
            running = group.create_task(ask(supervisor, "a", seconds=30))
            await ask(supervisor, "b")
            changed = Catalogue((model("a", args=("--new",)), model("b", lifecycle=SHORT)))
            supervisor.replace(changed, Pool(limit=Bytes(10 * GIB), reserve=Bytes(0)))
            asked = supervisor.now()
            again = await ask(supervisor, "a")
            assert running.done()
            assert again > asked + 19
            assert sorted(launcher.names()) == ["a", "a", "b"]

    run_virtual(main())


def test_shutdown_lets_answers_end_refuses_waiters_and_revokes_what_is_late() -> None:
    async def main() -> None:
        supervisor, launcher = make_supervisor(model("a", 6), model("b", 6), limit_gib=10)
        told: list[Reason] = []

        async def late() -> None:
            async with supervisor.lease(ModelId("a")) as lease:
                assert await lease.granted() is not None
                lease.on_revoke(told.append)
                assert await lease.lost(within=1000)

        async with supervisor, asyncio.TaskGroup() as group:
            quick = group.create_task(ask(supervisor, "a", seconds=12))
            slow = group.create_task(late())
            await asyncio.sleep(11)
            waiting = group.create_task(_expect_refusal(supervisor, "b"))
            await asyncio.sleep(1)
            began = supervisor.now()
            await supervisor.shut_down(Seconds(30.0))
            assert quick.done()
            assert slow.done()
            assert waiting.done()
            assert told == [Reason.SHUTDOWN]
            assert 30 <= supervisor.now() - began < 33
        assert launcher.running == []

    run_virtual(main())


async def _expect_refusal(supervisor: Supervisor, name: str) -> None:
    with pytest.raises(ShuttingDownError):
        await ask(supervisor, name)


def test_an_idle_supervisor_has_no_timer() -> None:
    async def main() -> None:
        supervisor, _ = make_supervisor(model("a", lifecycle=SHORT))
        async with supervisor:
            assert not has_timer(supervisor)
            await ask(supervisor, "a")
            assert has_timer(supervisor)
            await asyncio.sleep(20)
            assert not supervisor.fleet.instances
            assert not has_timer(supervisor)

    run_virtual(main())


def test_phases_are_told_to_those_who_wait() -> None:
    async def main() -> None:
        supervisor, launcher = make_supervisor(model("a"))
        async with supervisor:
            async with supervisor.lease(ModelId("a")) as lease:
                assert await lease.granted(within=2) is None
                (sink,) = launcher.sinks.values()
                sink("phase loading weights")
                assert lease.progress().phase == "loading weights"
                assert lease.progress().waited == pytest.approx(2.0, abs=0.1)
                assert lease.progress().estimate is None
                await lease.granted()
            await supervisor.unload(ModelId("a"), now=True, wait=True)
            async with supervisor.lease(ModelId("a")) as lease:
                assert await lease.granted(within=4) is None
                assert lease.progress().estimate == pytest.approx(6.0, abs=0.1)

    run_virtual(main())
