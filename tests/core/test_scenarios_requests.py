"""Who is served when, and who is told at once that it will not be."""

from __future__ import annotations

from sparkd.core.catalogue import QueuePolicy, Role
from sparkd.core.quantities import Seconds
from sparkd.errors import (
    ModelRemovedError,
    NeverFitsError,
    QueueFullError,
    QueueTimeoutError,
    ShuttingDownError,
)
from tests.core.truth import a_model
from tests.core.world import World


def test_a_cold_model_is_started_and_serves_when_it_is_ready():
    world = World(a_model("a"))
    ticket = world.want("a")
    assert world.kinds(world.last) == ["read memory", "start a"]
    assert world.kinds(world.ready("a")) == ["grant a"]
    assert world.asked(ticket).granted == world.id_of("a")


def test_fifty_requests_for_one_cold_model_share_one_start():
    world = World(a_model("a"))
    tickets = [world.want("a") for _ in range(50)]
    world.ready("a")
    assert world.kinds(world.decisions).count("start a") == 1
    assert all(world.asked(t).granted == world.id_of("a") for t in tickets)
    assert world.life("a").in_flight == 50


def test_a_ready_model_serves_at_once_while_others_wait_and_load():
    world = World(a_model("a"), a_model("b"), a_model("c", 9))
    world.serve("a")
    world.want("b")
    world.want("c")
    ticket = world.want("a")
    assert world.asked(ticket).granted == world.id_of("a")


def test_cold_models_start_in_the_order_of_their_earliest_ticket():
    world = World(a_model("x", 10), a_model("a", 7), a_model("b", 7))
    world.serve("x")
    world.want("b")
    world.advance(1)
    world.want("a")
    world.want("a")
    world.ended("x")
    world.exited("x")
    assert world.starting() == {"b"}


def test_a_cancelled_first_ticket_gives_up_the_models_place_in_line():
    world = World(a_model("x", 10), a_model("a", 7), a_model("b", 7))
    world.serve("x")
    first = world.want("b")
    world.want("a")
    world.want("b")
    world.cancel(first)
    world.ended("x")
    world.exited("x")
    assert world.starting() == {"a"}


def test_two_cold_models_that_fit_together_start_together():
    world = World(a_model("a", 5), a_model("b", 5))
    world.want("a")
    world.want("b")
    assert world.starting() == {"a", "b"}


def test_the_second_of_two_cold_models_starts_when_the_first_has_served_and_gone():
    world = World(a_model("a", 6), a_model("b", 6))
    world.want("a")
    second = world.want("b")
    assert world.starting() == {"a"}
    world.advance(20)
    world.ready("a")
    assert world.kinds(world.ended("a")) == ["stop a evicted"]
    assert "start b" in world.kinds(world.exited("a"))
    world.ready("b")
    assert world.asked(second).granted


def test_a_later_model_overtakes_where_it_fits_beside_the_earlier_ones_claim():
    world = World(a_model("x", 6), a_model("a", 7), a_model("b", 3))
    world.serve("x")
    world.want("a")  # needs x to go; then 3 are left
    world.want("b")
    assert world.starting() == {"b"}


def test_a_later_model_does_not_overtake_into_the_room_an_earlier_one_needs():
    world = World(a_model("x", 6), a_model("a", 8), a_model("b", 3))
    world.serve("x")
    world.want("a")  # needs x to go; then 2 are left
    world.want("b")
    assert world.starting() == set()


def test_a_later_model_does_not_take_room_that_an_earlier_one_leaves_for_its_short_pause():
    world = World(a_model("a", 6), a_model("b", 6))
    world.want("a")
    world.fails("a")
    world.want("a")  # rests for one second
    world.want("b")
    assert world.starting() == set()
    world.advance(1)
    assert world.starting() == {"a"}


def test_room_that_is_free_now_is_not_given_away_for_room_that_comes_back_some_time():
    """It rests for a second; what another's answers still hold may take an hour to come back."""
    world = World(a_model("x", 5), a_model("a", 5), a_model("b", 5))
    world.serve("x")
    world.reload(a_model("x", 5, revision=1), a_model("a", 5), a_model("b", 5))
    assert world.leaving() == {"x": "reconfigured"}
    world.want("a")
    world.fails("a")
    world.want("a")
    world.want("b")
    assert world.starting() == set()
    world.advance(1)
    assert world.starting() == {"a"}


def test_a_wait_ends_at_exactly_max_wait_with_the_time_it_may_yet_take():
    queue = QueuePolicy(max_wait=Seconds(30.0))
    world = World(a_model("a", queue=queue))
    ticket = world.want("a")
    world.advance(29.9)
    assert world.asked(ticket).waits
    world.advance(0.1)
    error = world.refusal(ticket)
    assert isinstance(error, QueueTimeoutError)
    assert "30s" in error.message
    assert world.starting() == {"a"}, "what loads is worth having"


def test_a_model_that_is_ready_in_the_last_instant_of_the_wait_serves():
    world = World(a_model("a", queue=QueuePolicy(max_wait=Seconds(30.0))))
    ticket = world.want("a")
    world.advance(29)
    world.oversleep(1)
    world.ready("a")
    assert world.asked(ticket).granted


def test_the_last_to_come_is_refused_when_the_queue_is_full():
    world = World(a_model("a", queue=QueuePolicy(max_waiting=2)), a_model("b"))
    first, second, third = world.want("a"), world.want("a"), world.want("a")
    assert isinstance(world.refusal(third), QueueFullError)
    assert world.asked(first).waits
    assert world.asked(second).waits
    assert world.asked(world.want("b")).waits, "every model has its own queue"
    world.cancel(first)
    assert world.asked(world.want("a")).waits


def test_a_full_queue_says_when_to_come_back_once_the_start_time_is_known():
    world = World(a_model("a", queue=QueuePolicy(max_waiting=1)))
    world.idle("a", loading=40)
    world.unload("a")
    world.exited("a")
    world.want("a")
    world.advance(10)
    assert world.refusal(world.want("a")).retry_after == 30


def test_where_nobody_may_wait_a_ready_model_still_serves():
    world = World(a_model("a"))
    world.idle("a")
    world.reload(a_model("a", queue=QueuePolicy(max_waiting=0)))
    assert world.asked(world.want("a")).granted
    world.unload("a", now=True)
    assert isinstance(world.refusal(world.want("a")), QueueFullError)


def test_a_model_larger_than_the_pool_is_refused_at_once():
    world = World(a_model("a", 10.5), limit=10)
    error = world.refusal(world.want("a"))
    assert isinstance(error, NeverFitsError)
    assert "10.5GiB" in error.message
    assert "10GiB" in error.message


def test_a_model_exactly_as_large_as_the_pool_is_started():
    world = World(a_model("a", 10), limit=10)
    world.want("a")
    assert world.starting() == {"a"}


def test_a_model_that_does_not_fit_beside_the_pinned_ones_is_refused_at_once():
    world = World(a_model("p", 4, role=Role.PINNED), a_model("a", 7), a_model("b", 6))
    error = world.refusal(world.want("a"))
    assert isinstance(error, NeverFitsError)
    assert "6GiB" in error.message
    assert world.asked(world.want("b")).waits


def test_an_exclusive_model_may_be_as_large_as_the_pool_despite_pinned_ones():
    world = World(a_model("p", 4, role=Role.PINNED), a_model("e", 10, role=Role.EXCLUSIVE))
    assert world.asked(world.want("e")).waits


def test_a_start_under_way_still_serves_when_a_smaller_limit_would_not_let_it_begin():
    model = a_model("a", 8)
    world = World(model)
    ticket = world.want("a")
    world.reload(model, limit=6)
    assert world.asked(ticket).waits
    world.ready("a")
    assert world.asked(ticket).granted


def test_whoever_waits_for_a_removed_model_is_told():
    world = World(a_model("x", 10), a_model("a"))
    world.serve("x")
    ticket = world.want("a")
    world.reload(a_model("x", 10))
    assert isinstance(world.refusal(ticket), ModelRemovedError)


def test_nothing_is_accepted_once_the_daemon_stops():
    world = World(a_model("a"), a_model("b"))
    world.serve("a")
    waiting = world.want("b")
    world.shutdown(60)
    for ticket in (waiting, world.want("a"), world.want("b")):
        assert isinstance(world.refusal(ticket), ShuttingDownError)


def test_a_cancelled_request_is_never_granted_and_its_start_goes_on():
    world = World(a_model("a"))
    ticket = world.want("a")
    assert world.cancel(ticket) == []
    assert world.kinds(world.ready("a")) == []
    assert world.life("a").idle_since == world.now
    assert world.cancel(ticket) == []
