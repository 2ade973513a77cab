"""Models that run alone, and models that always run."""

from __future__ import annotations

from sparkd.core.catalogue import Lifecycle, QueuePolicy, Role
from sparkd.core.quantities import Seconds
from tests.core.truth import a_model
from tests.core.world import World

EAGER = QueuePolicy(patience=Seconds(0.0))
PATIENT = QueuePolicy(patience=Seconds(60.0))
PINNED, EXCLUSIVE = Role.PINNED, Role.EXCLUSIVE


# -- exclusive -------------------------------------------------------------------------------


def test_an_exclusive_model_starts_only_when_everything_else_is_gone():
    world = World(a_model("a", 2), a_model("b", 2), a_model("e", 2, role=EXCLUSIVE))
    world.idle("a")
    world.idle("b")
    world.want("e")
    assert world.leaving().keys() == {"a", "b"}
    world.exited("a")
    assert "e" not in world.running()
    world.exited("b")
    assert world.starting() == {"e"}


def test_nothing_starts_beside_an_exclusive_model_however_small():
    world = World(a_model("a", 1), a_model("e", 2, role=EXCLUSIVE))
    world.serve("e")
    world.want("a")
    assert world.starting() == set()
    world.ended("e")
    assert world.leaving() == {"e": "evicted"}
    world.exited("e")
    assert world.starting() == {"a"}


def test_nothing_starts_while_an_exclusive_model_waits_for_the_others_to_go():
    world = World(a_model("a", 2), a_model("b", 2), a_model("e", 2, role=EXCLUSIVE, queue=PATIENT))
    world.serve("a")
    world.want("e")
    world.want("b")
    assert world.starting() == set()
    world.advance(60)
    assert world.leaving() == {"a": "starved"}


def test_an_exclusive_model_waits_for_a_start_under_way_and_then_for_its_turn():
    world = World(a_model("a", 2), a_model("e", 2, role=EXCLUSIVE, queue=EAGER))
    world.want("a")
    world.want("e")
    assert world.advance(100) == []
    world.ready("a")
    assert world.advance(29.9) == []
    assert world.kinds(world.advance(0.1)) == ["drain a starved"]


def test_a_busy_exclusive_model_is_drained_for_one_who_waited_out_its_patience():
    world = World(a_model("a", 2, queue=PATIENT), a_model("e", 2, role=EXCLUSIVE))
    world.serve("e")
    world.want("a")
    assert world.advance(59.9) == []
    assert world.kinds(world.advance(0.1)) == ["drain e starved"]


def test_an_exclusive_model_does_not_overtake_one_that_rests():
    world = World(a_model("a", 2), a_model("e", 2, role=EXCLUSIVE))
    world.want("a")
    world.fails("a")
    world.want("a")
    world.want("e")
    assert world.starting() == set()
    world.advance(1)
    assert world.starting() == {"a"}


def test_an_exclusive_model_does_not_overtake_one_that_the_probe_vetoes():
    world = World(a_model("a", 6), a_model("e", 2, role=EXCLUSIVE))
    world.truth.machine.foreign = 6
    world.want("a")
    world.want("e")
    assert world.starting() == set()


def test_a_warm_exclusive_model_serves_at_once():
    world = World(a_model("p", 2, role=PINNED), a_model("e", 2, role=EXCLUSIVE))
    world.ready("p")
    world.want("e")
    world.exited("p")
    world.ready("e")
    assert world.asked(world.want("e")).granted
    assert world.asked(world.want("p")).waits


def test_two_exclusive_models_take_turns():
    world = World(a_model("d", 2, role=EXCLUSIVE), a_model("e", 2, role=EXCLUSIVE))
    world.idle("d")
    world.want("e")
    assert world.leaving() == {"d": "evicted"}
    world.exited("d")
    assert world.starting() == {"e"}


# -- pinned ----------------------------------------------------------------------------------


def test_a_pinned_model_starts_with_the_fleet():
    world = World(a_model("p", 2, role=PINNED), a_model("a", 2))
    assert world.starting() == {"p"}


def test_pinned_models_start_as_far_as_they_fit_together():
    world = World(
        a_model("p", 6, role=PINNED), a_model("q", 6, role=PINNED), a_model("r", 4, role=PINNED)
    )
    assert world.starting() == {"p", "r"}


def test_a_pinned_model_is_never_stopped_for_being_idle():
    lifecycle = Lifecycle(keep_alive=Seconds(1.0), min_residency=Seconds(0.0))
    world = World(a_model("p", 2, role=PINNED, lifecycle=lifecycle))
    world.ready("p")
    assert world.advance(10_000) == []
    assert world.look_again_at is None


def test_a_pinned_model_is_never_evicted_for_one_that_shares():
    world = World(a_model("p", 4, role=PINNED), a_model("a", 3), a_model("b", 6, queue=EAGER))
    world.ready("p")
    world.serve("a")
    world.want("b")
    world.advance(1000)
    assert world.leaving() == {"a": "starved"}


def test_a_pinned_model_that_dies_is_started_again_after_its_pause():
    world = World(a_model("p", 2, role=PINNED))
    world.ready("p")
    world.fails("p")
    assert world.running() == set()
    assert world.advance(0.99) == []
    assert world.kinds(world.advance(0.01)) == ["read memory", "start p"]


def test_a_pinned_model_that_dies_again_and_again_is_tried_ever_more_rarely():
    world = World(a_model("p", 2, role=PINNED))
    for pause in (1, 2, 30, 60, 120, 240, 480, 600, 600):
        world.fails("p")
        assert world.advance(pause - 0.01) == []
        world.advance(0.01)
        assert world.starting() == {"p"}


def test_the_room_of_a_pinned_model_is_not_given_away_while_it_is_down():
    world = World(a_model("p", 4, role=PINNED), a_model("a", 4), a_model("b", 4))
    for pause in (1, 2):
        world.fails("p")
        world.advance(pause)
    world.fails("p")  # thirty seconds now
    world.idle("a")
    world.want("b")
    assert world.leaving() == {"a": "evicted"}, "b gets the room of a, not that of p"


def test_the_room_of_a_pinned_model_is_not_given_away_while_an_exclusive_one_waits():
    world = World(
        a_model("p", 4, role=PINNED), a_model("x", 2), a_model("a", 6),
        a_model("e", 9, role=EXCLUSIVE),
    )  # fmt: skip
    world.ready("p")
    world.serve("x")
    world.fails("p")
    world.want("a")
    world.want("e")
    assert world.starting() == set()
    world.advance(1)
    assert world.starting() == set(), "p steps back while e waits, and a waits for x"


def test_an_exclusive_model_drains_pinned_ones_and_they_return_after_it():
    world = World(a_model("p", 2, role=PINNED), a_model("e", 9, role=EXCLUSIVE))
    world.ready("p")
    world.want("e")
    assert world.leaving() == {"p": "evicted"}
    world.exited("p")
    assert world.starting() == {"e"}
    world.ready("e")
    world.ended("e")
    world.advance(1199)
    assert world.running() == {"e"}
    world.advance(1)
    assert world.leaving() == {"e": "idle"}
    assert world.starting() == set()
    world.exited("e")
    assert world.starting() == {"p"}


def test_a_busy_pinned_model_is_drained_for_an_exclusive_one_after_its_patience():
    world = World(a_model("p", 2, role=PINNED), a_model("e", 9, role=EXCLUSIVE, queue=PATIENT))
    world.ready("p")
    world.want("p")
    world.want("e")
    assert world.advance(59.9) == []
    assert world.kinds(world.advance(0.1)) == ["drain p starved"]
    world.ended("p")
    world.exited("p")
    assert world.starting() == {"e"}


def test_a_pinned_model_that_is_asked_for_gets_its_turn_after_an_exclusive_one():
    world = World(a_model("p", 2, role=PINNED), a_model("e", 9, role=EXCLUSIVE))
    world.ready("p")
    world.want("e")
    world.exited("p")
    world.ready("e")
    world.want("p")
    world.ended("e")
    assert world.leaving() == {"e": "evicted"}
    world.exited("e")
    assert world.starting() == {"p"}


def test_a_pinned_model_that_was_asked_for_before_an_exclusive_one_comes_before_it():
    world = World(a_model("p", 2, role=PINNED), a_model("e", 9, role=EXCLUSIVE))
    world.ready("p")
    world.fails("p")
    world.want("p")
    world.want("e")
    world.advance(1)
    assert world.starting() == {"p"}


def test_an_operators_unload_holds_a_pinned_model_down_until_it_is_asked_for():
    world = World(a_model("p", 2, role=PINNED), a_model("a", 9))
    world.ready("p")
    world.unload("p")
    world.exited("p")
    assert world.advance(10_000) == []
    assert world.running() == set()
    world.want("p")
    assert world.starting() == {"p"}


def test_a_pinned_model_that_is_held_down_leaves_its_room_to_others():
    world = World(a_model("p", 2, role=PINNED), a_model("a", 9))
    world.unload("p")
    world.exited("p")
    world.want("a")
    assert world.starting() == {"a"}


def test_an_operators_load_brings_a_held_pinned_model_back():
    world = World(a_model("p", 2, role=PINNED))
    world.unload("p")
    world.exited("p")
    ticket = world.load("p")
    world.ready("p")
    assert world.asked(ticket).granted


def test_idle_models_make_room_for_a_pinned_one_that_a_reload_added():
    world = World(a_model("a", 9))
    world.idle("a")
    world.reload(a_model("a", 8), a_model("p", 2, role=PINNED))
    assert "p" not in world.running()
    world.exited("a")
    assert world.starting() == {"p"}
