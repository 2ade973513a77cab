"""How an instance ends by decision: idle, overdue, unloaded, reconfigured, at shutdown."""

from __future__ import annotations

import pytest

from sparkd.core import events as e
from sparkd.core.catalogue import Lifecycle, QueuePolicy, Role
from sparkd.core.decisions import Stop
from sparkd.core.instance import InstanceId
from sparkd.core.quantities import Seconds
from sparkd.core.rules.verdict import START_STOP_GRACE
from sparkd.errors import ModelUnloadedError, StartTimeoutError
from tests.core.truth import CRASH, a_model
from tests.core.world import World


def lifecycle(keep_alive: float = 1200, residency: float = 30, drain: float = 60) -> Lifecycle:
    return Lifecycle(
        keep_alive=Seconds(keep_alive),
        min_residency=Seconds(residency),
        start_timeout=Seconds(300.0),
        stop_timeout=Seconds(20.0),
        drain_timeout=Seconds(drain),
    )


# -- idle ------------------------------------------------------------------------------------


def test_an_idle_model_stops_at_exactly_its_keep_alive():
    world = World(a_model("a", lifecycle=lifecycle(keep_alive=100)))
    world.idle("a")
    assert world.advance(99.9) == []
    assert world.kinds(world.advance(0.1)) == ["stop a idle"]


def test_a_request_in_the_last_instant_keeps_the_model():
    world = World(a_model("a", lifecycle=lifecycle(keep_alive=100)))
    world.idle("a")
    world.advance(99)
    world.oversleep(1)
    assert world.asked(world.want("a")).granted
    assert world.advance(1000) == []


def test_an_answer_longer_than_the_keep_alive_is_never_cut():
    world = World(a_model("a", lifecycle=lifecycle(keep_alive=100)))
    world.serve("a")
    assert world.advance(100_000) == []


def test_the_idle_clock_starts_anew_after_every_answer():
    world = World(a_model("a", lifecycle=lifecycle(keep_alive=100)))
    world.idle("a")
    for _ in range(5):
        world.advance(90)
        world.want("a")
        assert world.ended("a") == []
    assert world.advance(99.9) == []
    assert world.kinds(world.advance(0.1)) == ["stop a idle"]


def test_the_idle_clock_waits_for_the_last_of_overlapping_answers():
    world = World(a_model("a", lifecycle=lifecycle(keep_alive=6)))
    world.serve("a")
    world.want("a")
    world.ended("a")
    assert world.advance(100) == []
    world.ended("a")
    assert world.kinds(world.advance(6)) == ["stop a idle"]


def test_a_model_nobody_used_after_all_stops_at_its_keep_alive_too():
    world = World(a_model("a", lifecycle=lifecycle(keep_alive=100)))
    world.cancel(world.want("a"))
    world.ready("a")
    assert world.kinds(world.advance(100)) == ["stop a idle"]


def test_a_short_keep_alive_waits_for_the_minimum_residency():
    world = World(a_model("a", lifecycle=lifecycle(keep_alive=1, residency=30)))
    world.idle("a")
    assert world.advance(29.9) == []
    assert world.kinds(world.advance(0.1)) == ["stop a idle"]


def test_keep_alive_zero_keeps_for_ever():
    world = World(a_model("a", lifecycle=lifecycle(keep_alive=0)))
    world.idle("a")
    assert world.advance(1e6) == []


# -- overdue ---------------------------------------------------------------------------------


def test_a_start_ends_at_exactly_its_timeout_and_those_who_waited_are_told():
    world = World(a_model("a", lifecycle=lifecycle()))
    tickets = [world.want("a"), world.want("a")]
    assert world.advance(299.9) == []
    assert world.kinds(world.advance(0.1))[0] == "stop a timeout"
    for ticket in tickets:
        error = world.refusal(ticket)
        assert isinstance(error, StartTimeoutError)
        assert error.retry_after == 1


def test_a_start_that_is_ready_just_in_time_lives():
    world = World(a_model("a", lifecycle=lifecycle()))
    ticket = world.want("a")
    world.advance(299.9)
    world.ready("a")
    assert world.asked(ticket).granted


def test_one_who_comes_after_a_timeout_waits_for_the_next_start():
    world = World(a_model("a", lifecycle=lifecycle()))
    world.want("a")
    world.advance(300)
    ticket = world.want("a")
    world.exited("a")
    world.advance(1)
    world.ready("a")
    assert world.asked(ticket).granted


# -- unload ----------------------------------------------------------------------------------


def test_an_unload_of_a_starting_model_stops_it_with_a_short_grace():
    world = World(a_model("a"))
    tickets = [world.want("a"), world.want("a")]
    world.unload("a")
    (stop,) = [d for d in world.last if isinstance(d, Stop)]
    assert stop.grace == START_STOP_GRACE == Seconds(5.0)
    assert all(isinstance(world.refusal(t), ModelUnloadedError) for t in tickets)
    world.exited("a")
    assert world.asked(world.want("a")).waits, "an unload is no failure"
    assert world.starting() == {"a"}


def test_an_unload_of_an_idle_model_stops_it_at_once():
    world = World(a_model("a", lifecycle=lifecycle()))
    world.idle("a")
    assert world.kinds(world.unload("a")) == ["drain a unloaded", "stop a unloaded"]


def test_an_unload_waits_for_answers_until_exactly_the_drain_timeout():
    world = World(a_model("a", lifecycle=lifecycle(drain=60)))
    world.serve("a")
    assert world.kinds(world.unload("a")) == ["drain a unloaded"]
    assert world.advance(59.9) == []
    assert world.kinds(world.advance(0.1)) == ["stop a unloaded"]


def test_a_second_unload_does_not_start_the_drain_timeout_anew():
    world = World(a_model("a", lifecycle=lifecycle(drain=60)))
    world.serve("a")
    world.unload("a")
    world.advance(59)
    world.unload("a")
    assert world.kinds(world.advance(1)) == ["stop a unloaded"]


def test_an_unload_now_does_not_wait_for_answers():
    world = World(a_model("a"))
    world.serve("a")
    assert world.kinds(world.unload("a", now=True)) == ["drain a unloaded", "stop a unloaded"]


def test_an_unload_now_ends_a_drain_under_way():
    world = World(a_model("a"))
    world.serve("a")
    world.unload("a")
    assert world.kinds(world.unload("a", now=True)) == ["stop a unloaded"]


@pytest.mark.parametrize("now", [False, True])
def test_an_unload_bounds_a_drain_that_would_wait_for_ever(now: bool):
    world = World(a_model("a", lifecycle=lifecycle(drain=60)))
    world.serve("a")
    world.reload(a_model("a", revision=1, lifecycle=lifecycle(drain=60)))
    assert world.advance(5000) == []
    stopped = world.unload("a", now=now) + world.advance(60)
    assert world.kinds(stopped) == ["stop a unloaded"]


def test_whoever_asks_again_after_an_unload_gets_a_new_instance():
    world = World(a_model("a"))
    world.serve("a")
    first = world.id_of("a")
    world.unload("a")
    ticket = world.want("a")
    assert world.asked(ticket).waits
    world.ended("a")
    world.exited("a")
    world.ready("a")
    assert world.asked(ticket).granted not in (None, first)


def test_an_unload_of_a_cold_model_refuses_those_who_wait_for_it():
    world = World(a_model("x", 10), a_model("a"))
    world.serve("x")
    ticket = world.want("a")
    world.unload("a")
    assert isinstance(world.refusal(ticket), ModelUnloadedError)
    assert world.asked(world.want("a")).waits


# -- reload ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        a_model("a", 4, revision=1),
        a_model("a", 5),
        a_model("a", 4, role=Role.EXCLUSIVE),
        a_model("another", 4),
    ],
)
def test_a_changed_model_is_drained_without_cutting_its_answers(changed):
    world = World(a_model("a", 4))
    world.serve("a")
    assert world.kinds(world.reload(changed)) == ["drain a reconfigured"]
    assert world.advance(100_000) == []
    assert world.kinds(world.ended("a")) == ["stop a reconfigured"]


def test_a_changed_model_is_started_anew_for_those_who_want_it():
    changed = a_model("a", 4, revision=1)
    world = World(a_model("a", 4))
    world.serve("a")
    world.reload(changed)
    ticket = world.want("a")
    world.ended("a")
    world.exited("a")
    assert world.life("a").model is changed
    world.ready("a")
    assert world.asked(ticket).granted


def test_a_changed_model_that_starts_begins_again_and_keeps_its_waiters():
    world = World(a_model("a", 4))
    ticket = world.want("a")
    assert world.kinds(world.reload(a_model("a", 4, revision=1))) == ["stop a reconfigured"]
    world.exited("a")
    world.ready("a")
    assert world.asked(ticket).granted


def test_a_change_of_policy_alone_touches_no_instance_and_holds_at_once():
    world = World(a_model("a", lifecycle=lifecycle(keep_alive=1000)), a_model("b"))
    world.idle("a")
    patient = QueuePolicy(max_wait=Seconds(5.0))
    shorter = a_model("a", lifecycle=lifecycle(keep_alive=100), queue=patient)
    assert world.reload(shorter, a_model("b")) == []
    assert world.kinds(world.advance(100)) == ["stop a idle"]


def test_a_lower_limit_stops_nobody_and_starts_nobody():
    world = World(a_model("a", 6), a_model("b", 4))
    world.serve("a")
    assert world.reload(a_model("a", 6), a_model("b", 4), limit=5) == []
    world.want("b")
    assert world.starting() == set()
    world.ended("a")
    world.exited("a")
    assert world.starting() == {"b"}


def test_a_pinned_model_is_changed_like_any_other_and_comes_back_by_itself():
    world = World(a_model("p", 4, role=Role.PINNED))
    world.ready("p")
    world.reload(a_model("p", 5, role=Role.PINNED))
    assert world.leaving() == {"p": "reconfigured"}
    world.exited("p")
    assert world.starting() == {"p"}


# -- shutdown --------------------------------------------------------------------------------


def test_a_shutdown_stops_starts_at_once_and_idle_ones_too():
    world = World(a_model("a"), a_model("b"))
    world.idle("a")
    world.want("b")
    world.shutdown(60)
    assert world.leaving() == {"a": "shutdown", "b": "shutdown"}
    assert all(x.stopped for x in world.truth.lives.values())


def test_a_shutdown_cuts_answers_at_exactly_its_deadline():
    world = World(a_model("a"))
    world.serve("a")
    assert world.kinds(world.shutdown(60)) == ["drain a shutdown"]
    assert world.advance(59.9) == []
    assert world.kinds(world.advance(0.1)) == ["stop a shutdown"]


def test_a_shutdown_bounds_a_drain_that_would_wait_for_ever():
    world = World(a_model("a"))
    world.serve("a")
    world.reload(a_model("a", revision=1))
    world.shutdown(60)
    assert world.advance(59.9) == []
    assert world.kinds(world.advance(0.1)) == ["stop a shutdown"]


def test_a_shutdown_without_patience_stops_everything_at_once():
    world = World(a_model("a"))
    world.serve("a")
    assert world.kinds(world.shutdown(0)) == ["drain a shutdown", "stop a shutdown"]


def test_nothing_pinned_comes_back_during_a_shutdown():
    world = World(a_model("p", role=Role.PINNED))
    world.ready("p")
    world.shutdown(60)
    world.exited("p")
    assert world.advance(1000) == []
    assert world.running() == set()


# -- late news -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event",
    [
        e.RequestEnded(InstanceId("boot-1")),
        e.PhaseReached(InstanceId("boot-1"), "loading"),
        e.InstanceReady(InstanceId("boot-1")),
        e.EngineLost(InstanceId("boot-1"), CRASH),
        e.InstanceExited(InstanceId("boot-1"), CRASH),
    ],
)
def test_news_about_a_life_that_is_over_changes_nothing(event: e.Event):
    world = World(a_model("a"))
    world.idle("a")
    world.unload("a")
    world.exited("a")
    world.want("a")
    before = world.fleet
    assert world.tell(event) == []
    assert world.fleet == before


def test_an_engine_that_is_ready_after_it_was_told_to_stop_serves_nobody():
    world = World(a_model("a"))
    world.want("a")
    world.unload("a")
    ticket = world.want("a")
    world.ready("a")
    assert world.asked(ticket).waits
    assert world.life("a").ready_at is None


def test_an_engine_that_dies_after_it_was_told_to_stop_has_not_failed():
    world = World(a_model("a"))
    world.idle("a")
    world.unload("a")
    world.fails("a")
    world.want("a")
    assert world.starting() == {"a"}
