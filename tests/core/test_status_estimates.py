"""What people are told: the state of a model, its place in line, and how long it may take."""

from __future__ import annotations

from sparkd.core.catalogue import Lifecycle, ModelId, QueuePolicy, Role
from sparkd.core.estimates import queue_position, seconds_until_served
from sparkd.core.quantities import Seconds
from sparkd.core.status import ModelState, state_of
from tests.core.truth import a_model
from tests.core.world import World


def state(world: World, name: str = "a") -> ModelState:
    return state_of(world.fleet, ModelId(name), world.now)


def estimate(world: World, name: str = "a") -> float | None:
    return seconds_until_served(world.fleet, ModelId(name), world.now)


def position(world: World, name: str) -> int:
    return queue_position(world.fleet, ModelId(name))


def known(world: World, *names: str, loading: float = 40) -> None:
    """Each of the models has started once, and is cold again."""
    for name in names:
        world.idle(name, loading=loading)
        world.unload(name)
        world.exited(name)


def test_a_model_is_called_by_where_its_instance_is():
    world = World(a_model("a"))
    assert state(world) is ModelState.COLD
    world.want("a")
    assert state(world) is ModelState.STARTING
    world.ready("a")
    assert state(world) is ModelState.READY
    world.unload("a")
    assert state(world) is ModelState.DRAINING
    world.ended("a")
    assert state(world) is ModelState.STOPPING
    world.exited("a")
    assert state(world) is ModelState.COLD


def test_a_model_that_waits_for_room_is_queued():
    world = World(a_model("a", 6), a_model("x", 6))
    world.serve("x")
    world.want("a")
    assert state(world) is ModelState.QUEUED


def test_a_model_that_rests_after_a_failure_is_failed_until_its_pause_is_over():
    world = World(a_model("a"))
    world.want("a")
    world.fails("a")
    assert state(world) is ModelState.FAILED
    world.advance(1)
    assert state(world) is ModelState.COLD


def test_a_ready_model_serves_in_no_time():
    world = World(a_model("a"))
    world.serve("a")
    assert estimate(world) == 0


def test_nothing_is_estimated_before_a_start_was_seen():
    world = World(a_model("a"))
    assert estimate(world) is None
    world.want("a")
    assert estimate(world) is None


def test_a_start_takes_as_long_as_the_last_ones_did():
    world = World(a_model("a"))
    known(world, "a", loading=40)
    assert estimate(world) == 40
    known(world, "a", loading=20)
    assert estimate(world) == 30, "the mean of the last and what was learned before"


def test_a_start_under_way_takes_what_is_left_of_it_and_never_less_than_a_second():
    world = World(a_model("a"))
    known(world, "a", loading=40)
    world.want("a")
    world.advance(15)
    assert estimate(world) == 25
    world.advance(100)
    assert estimate(world) == 1


def test_a_pause_is_waited_for_before_the_start():
    world = World(a_model("a"))
    known(world, "a", loading=40)
    world.want("a")
    world.fails("a")
    assert estimate(world) == 41


def test_room_that_idle_ones_make_costs_no_time():
    world = World(a_model("a", 6), a_model("x", 6))
    known(world, "a")
    world.idle("x")
    assert estimate(world) == 40


def test_a_busy_one_is_waited_for_as_long_as_the_patience_lasts():
    world = World(a_model("a", 6, queue=QueuePolicy(patience=Seconds(60.0))), a_model("x", 6))
    known(world, "a")
    world.serve("x")
    world.want("a")
    world.advance(45)
    assert estimate(world) == 15 + 40


def test_nothing_is_estimated_while_another_model_loads_in_the_way():
    world = World(a_model("a", 6), a_model("x", 6))
    known(world, "a")
    world.want("x")
    assert estimate(world) is None


def test_an_exclusive_model_waits_for_the_others_even_where_it_would_fit_beside_them():
    queue = QueuePolicy(patience=Seconds(60.0))
    world = World(a_model("a", 2, role=Role.EXCLUSIVE, queue=queue), a_model("x", 2, queue=queue))
    known(world, "a")
    world.serve("x")
    world.advance(100)
    assert estimate(world) == 60 + 40
    world.ended("x")
    assert estimate(world) == 40


def test_a_model_waits_for_an_exclusive_one_even_where_it_would_fit_beside_it():
    queue = QueuePolicy(patience=Seconds(60.0))
    world = World(a_model("a", 2, queue=queue), a_model("e", 2, role=Role.EXCLUSIVE))
    known(world, "a")
    world.serve("e")
    world.advance(100)
    assert estimate(world) == 60 + 40


def test_a_model_that_left_the_catalogue_has_no_estimate():
    world = World(a_model("a"))
    known(world, "a")
    world.reload(a_model("b"))
    assert estimate(world) is None


def test_the_place_in_line_counts_models_that_wait_for_a_start():
    lifecycle = Lifecycle(keep_alive=Seconds(0.0))
    world = World(a_model("x", 10, lifecycle=lifecycle), a_model("a", 9), a_model("b", 9))
    world.serve("x")
    world.want("b")
    world.want("b")
    world.want("a")
    assert [position(world, name) for name in "xba"] == [0, 1, 2]
