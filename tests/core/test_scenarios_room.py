"""Making room: who has to go for whom, and when."""

from __future__ import annotations

import pytest

from sparkd.core.catalogue import Lifecycle, QueuePolicy
from sparkd.core.quantities import Instant, Seconds
from tests.core.truth import a_model
from tests.core.world import World


def test_an_idle_model_goes_at_once_even_within_its_minimum_residency():
    lifecycle = Lifecycle(min_residency=Seconds(30.0))
    world = World(a_model("a", 6, lifecycle=lifecycle), a_model("b", 6))
    world.idle("a")
    world.want("b")
    assert world.kinds(world.last) == ["stop a evicted"]


def test_the_budget_is_free_when_the_engine_is_gone_not_when_it_is_told_to_go():
    world = World(a_model("a", 6), a_model("b", 6))
    world.idle("a")
    world.want("b")
    assert world.advance(500) == []
    assert world.kinds(world.exited("a")) == ["read memory", "start b"]


def test_the_least_recently_used_idle_model_goes_first():
    world = World(a_model("a", 3), a_model("b", 3), a_model("c", 3), a_model("d", 3))
    for name in "abc":
        world.idle(name)
    world.advance(5)
    world.want("a")
    world.ended("a")  # now b is the one unused for longest
    world.want("d")
    assert world.kinds(world.last) == ["stop b evicted"]


def test_a_request_makes_a_model_recently_used_when_it_ends_not_when_it_begins():
    world = World(a_model("a", 3), a_model("b", 3), a_model("c", 5))
    world.serve("a")
    world.idle("b")
    world.advance(50)
    world.ended("a")
    world.want("c")
    assert world.kinds(world.last) == ["stop b evicted"]


@pytest.mark.parametrize(("slow", "quick"), [("a", "b"), ("b", "a")])
def test_of_equally_unused_ones_the_one_that_reloads_fastest_goes(slow: str, quick: str):
    world = World(a_model("a", 5), a_model("b", 5), a_model("c", 5))
    world.want(quick)
    world.want(slow)
    world.advance(10)
    world.ready(quick)
    world.advance(30)
    world.ready(slow)
    world.ended(quick)
    world.ended(slow)
    world.want("c")
    assert world.leaving().keys() == {quick}


def test_nothing_goes_when_all_that_could_go_would_not_suffice():
    world = World(a_model("busy", 6), a_model("idle", 2), a_model("big", 8))
    world.idle("idle")
    world.serve("busy")
    world.want("big")
    assert world.leaving() == {}


def test_the_whole_set_goes_together():
    world = World(a_model("a", 3), a_model("b", 3), a_model("c", 3), a_model("big", 7))
    for name in "abc":
        world.idle(name)
    world.want("big")
    assert world.kinds(world.last) == ["stop a evicted", "stop b evicted"]


def test_one_that_a_larger_victim_makes_unnecessary_is_spared():
    world = World(a_model("small", 1), a_model("large", 6), a_model("big", 8))
    world.idle("small")
    world.idle("large")
    world.want("big")
    assert world.leaving().keys() == {"large"}


def test_an_idle_one_goes_before_a_busy_one_that_was_used_longer_ago():
    queue = QueuePolicy(patience=Seconds(0.0))
    world = World(a_model("busy", 5), a_model("idle", 5), a_model("b", 5, queue=queue))
    world.serve("busy")
    world.advance(60)
    world.idle("idle")
    world.want("b")
    assert world.leaving().keys() == {"idle"}


def test_what_already_leaves_is_counted_before_anyone_else_has_to_go():
    world = World(a_model("a", 5), a_model("b", 5), a_model("c", 5))
    world.idle("a")
    world.idle("b")
    world.unload("a")
    world.want("c")
    assert world.leaving().keys() == {"a"}


def test_two_wanted_models_do_not_count_on_the_same_victim():
    world = World(a_model("a", 5), a_model("b", 5), a_model("c", 5), a_model("d", 5))
    world.idle("a")
    world.idle("b")
    world.want("c")
    world.want("d")
    assert world.leaving().keys() == {"a", "b"}


def test_an_idle_one_stays_while_its_going_would_not_yet_let_the_later_model_start():
    world = World(a_model("busy", 7), a_model("idle", 3), a_model("b", 5), a_model("c", 4))
    world.idle("idle")
    world.serve("busy")
    world.want("b")  # waits for busy
    world.want("c")  # needs idle and what busy leaves over
    assert world.leaving() == {}


# -- a busy one ------------------------------------------------------------------------------


def test_a_busy_model_is_drained_at_exactly_the_patience_of_the_one_who_waits():
    world = World(a_model("a", 6), a_model("b", 6, queue=QueuePolicy(patience=Seconds(60.0))))
    world.serve("a")
    world.advance(100)
    world.want("b")
    assert world.advance(59.9) == []
    assert world.kinds(world.advance(0.1)) == ["drain a starved"]


def test_a_busy_model_is_not_drained_before_its_minimum_residency():
    queue = QueuePolicy(patience=Seconds(10.0))
    lifecycle = Lifecycle(min_residency=Seconds(30.0))
    world = World(a_model("a", 6, lifecycle=lifecycle), a_model("b", 6, queue=queue))
    world.serve("a")
    world.want("b")
    assert world.advance(29.9) == []
    assert world.kinds(world.advance(0.1)) == ["drain a starved"]


def test_a_drain_for_another_model_never_cuts_an_answer():
    world = World(a_model("a", 6), a_model("b", 6, queue=QueuePolicy(patience=Seconds(0.0))))
    world.serve("a")
    world.want("a")
    world.want("b")
    world.advance(100_000 / 60)
    assert world.leaving() == {"a": "starved"}
    world.ended("a")
    assert world.life("a").stopped is None
    assert world.kinds(world.ended("a")) == ["stop a starved"]


def test_a_draining_model_takes_no_new_request_and_comes_back_for_it():
    patient = QueuePolicy(patience=Seconds(0.0))
    world = World(a_model("a", 6), a_model("b", 6, queue=patient))
    world.serve("a")
    world.advance(60)
    world.want("b")
    late = world.want("a")
    assert world.asked(late).waits
    world.ended("a")
    world.exited("a")
    world.ready("b")
    world.ended("b")
    world.exited("b")
    world.ready("a")
    assert world.asked(late).granted


def test_the_patience_of_one_who_left_does_not_drain_for_the_next():
    world = World(a_model("a", 6), a_model("b", 6, queue=QueuePolicy(patience=Seconds(60.0))))
    world.serve("a")
    first = world.want("b")
    world.advance(50)
    world.want("b")
    world.cancel(first)
    assert world.advance(59) == []
    assert world.kinds(world.advance(1)) == ["drain a starved"]


def test_those_who_join_the_wait_do_not_start_the_patience_anew():
    world = World(a_model("a", 6), a_model("b", 6, queue=QueuePolicy(patience=Seconds(60.0))))
    world.serve("a")
    world.want("b")
    world.advance(59)
    world.want("b")
    assert world.kinds(world.advance(1)) == ["drain a starved"]


def test_nobody_is_sacrificed_before_the_last_of_the_set_may_go():
    """Idle ones go with the busy one that the set needs, not ahead of it."""
    world = World(a_model("idle", 4), a_model("busy", 4), a_model("big", 9))
    world.idle("idle")
    world.serve("busy")
    world.want("big")
    assert world.leaving() == {}
    world.advance(60)
    assert world.leaving() == {"idle": "evicted", "busy": "starved"}


def test_a_model_that_loads_is_never_given_up_for_another():
    world = World(a_model("a", 6), a_model("b", 6, queue=QueuePolicy(patience=Seconds(0.0))))
    world.want("a")
    world.want("b")
    assert world.advance(300) == []
    assert world.starting() == {"a"}


def test_alternating_requests_switch_models_without_an_error():
    world = World(a_model("a", 6), a_model("b", 6))
    for name, other in (("a", "b"), ("b", "a"), ("a", "b"), ("b", "a")):
        if other in world.running():
            world.want(name)
            world.exited(other)
            world.ready(name)
        else:
            world.serve(name)
        world.ended(name)
    assert world.kinds(world.decisions).count("start a") == 2
    assert world.kinds(world.decisions).count("start b") == 2


def test_twenty_requests_over_three_models_of_which_two_fit_are_all_served():
    world = World(a_model("a", 5), a_model("b", 5), a_model("c", 5))
    tickets = [world.want("abc"[n % 3]) for n in range(20)]
    world.ready("a")
    world.ready("b")
    for _ in range(7):
        world.ended("a")
    world.exited("a")
    world.ready("c")
    assert all(world.asked(t).granted for t in tickets)
    starts = [k for k in world.kinds(world.decisions) if k.startswith("start")]
    assert starts == ["start a", "start b", "start c"]


def test_no_time_is_asked_for_when_only_an_event_can_help():
    lifecycle = Lifecycle(keep_alive=Seconds(0.0))
    world = World(a_model("a", lifecycle=lifecycle))
    assert world.look_again_at is None
    world.idle("a")
    assert world.look_again_at is None
    assert world.now > Instant(1000.0)
