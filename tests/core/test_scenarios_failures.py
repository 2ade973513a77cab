"""Engines that die: who is told, how long the model rests, and what is forgiven."""

from __future__ import annotations

import pytest

from sparkd.core import events as e
from sparkd.core.backoff import pause_after
from sparkd.core.catalogue import QueuePolicy
from sparkd.core.failure import Failure, FailureCause
from sparkd.core.quantities import Seconds
from sparkd.errors import BackingOffError, StartFailedError
from tests.core.truth import CRASH, a_model
from tests.core.world import World

BAD_FLAG = Failure(
    cause=FailureCause.BAD_FLAG, detail="unrecognized arguments: --wat", exit_status=2,
    log_tail=("usage: vllm serve", "vllm: error: unrecognized arguments: --wat"),
)  # fmt: skip


def broken(failures: int) -> World:
    """Model a has failed to start so many times, the last time just now."""
    world = World(a_model("a"), a_model("b"))
    for number in range(1, failures + 1):
        world.want("a")
        world.fails("a")
        if number < failures:
            world.advance(pause_after(number))
    return world


@pytest.mark.parametrize(
    ("failures", "pause"),
    [(1, 1), (2, 2), (3, 30), (4, 60), (5, 120), (6, 240), (7, 480), (8, 600), (9, 600), (99, 600)],
)
def test_pauses_grow_from_a_second_to_ten_minutes(failures: int, pause: float):
    assert pause_after(failures) == pause


def test_all_who_waited_for_a_failed_start_are_told_why_at_once():
    world = World(a_model("a"))
    tickets = [world.want("a") for _ in range(3)]
    world.lost("a", BAD_FLAG)
    for ticket in tickets:
        error = world.refusal(ticket)
        assert isinstance(error, StartFailedError)
        assert error.cause == "bad_flag"
        assert "unrecognized arguments: --wat" in error.message
        assert "exit status 2" in error.message
        assert error.log_tail == BAD_FLAG.log_tail
        assert error.retry_after == 1


def test_an_engine_that_could_not_be_launched_has_failed():
    world = World(a_model("a"))
    ticket = world.want("a")
    failure = Failure(cause=FailureCause.LAUNCH_FAILED, detail="no such file")
    world.exited("a", failure)
    error = world.refusal(ticket)
    assert isinstance(error, StartFailedError)
    assert error.cause == "launch_failed"
    assert world.running() == set()


def test_an_exit_nobody_asked_for_is_a_failure_even_with_exit_status_0():
    world = World(a_model("a"))
    ticket = world.want("a")
    world.lost("a", Failure(cause=FailureCause.ENGINE_DIED, detail="bye", exit_status=0))
    assert isinstance(world.refusal(ticket), StartFailedError)


def test_an_exit_of_which_nothing_else_is_known_is_a_failure():
    world = World(a_model("a"))
    ticket = world.want("a")
    world.exited("a")
    assert isinstance(world.refusal(ticket), StartFailedError)


def test_a_request_during_the_first_pauses_waits_for_the_next_attempt():
    world = broken(1)
    ticket = world.want("a")
    assert world.asked(ticket).waits
    assert world.advance(0.99) == []
    world.advance(0.01)
    assert world.starting() == {"a"}


def test_the_next_attempt_waits_for_the_dead_engine_to_be_gone():
    world = World(a_model("a"))
    world.want("a")
    world.lost("a")
    world.want("a")
    assert world.advance(100) == []
    assert "start a" in world.kinds(world.exited("a"))


def test_requests_are_refused_at_once_while_the_breaker_is_open():
    world = broken(3)
    world.advance(10)
    error = world.refusal(world.want("a"))
    assert isinstance(error, BackingOffError)
    assert error.retry_after == 20
    assert "it broke" in error.message


def test_the_breaker_lets_one_attempt_through_at_exactly_the_end_of_its_pause():
    world = broken(3)
    world.advance(29.9)
    assert isinstance(world.refusal(world.want("a")), BackingOffError)
    world.advance(0.1)
    ticket = world.want("a")
    assert world.starting() == {"a"}
    world.ready("a")
    assert world.asked(ticket).granted


def test_a_failed_attempt_after_the_breaker_opens_it_for_longer():
    world = broken(4)
    error = world.refusal(world.want("a"))
    assert error.retry_after == 60


def test_a_model_that_rests_does_not_hold_up_the_others():
    world = broken(3)
    world.want("b")
    assert world.starting() == {"b"}


def test_an_operators_load_forgives():
    world = broken(5)
    ticket = world.load("a")
    assert world.starting() == {"a"}
    world.fails("a")
    assert world.refusal(ticket).retry_after == 1


def test_a_reload_forgives():
    world = broken(5)
    world.reload(a_model("a"), a_model("b"))
    world.want("a")
    assert world.starting() == {"a"}


def test_a_death_in_use_counts_but_refuses_nobody_yet():
    world = World(a_model("a"))
    world.serve("a")
    world.fails("a")
    ticket = world.want("a")
    world.advance(1)
    world.ready("a")
    assert world.asked(ticket).granted


@pytest.mark.parametrize(("lived", "retry_after"), [(59.9, 2), (60, 1)])
def test_a_death_after_a_minute_in_service_starts_a_new_count(lived: float, retry_after: float):
    world = broken(1)
    world.want("a")
    world.advance(1)
    world.ready("a")
    world.ended("a")
    world.advance(lived)
    world.fails("a")
    assert world.advance(retry_after - 0.01) == []
    ticket = world.want("a")
    world.advance(0.01)
    assert world.starting() == {"a"}
    assert world.asked(ticket).waits


def test_a_good_life_that_ends_as_asked_forgives_what_was_before_it():
    world = broken(2)
    world.want("a")
    world.advance(2)
    world.ready("a")
    world.ended("a")
    world.advance(60)
    world.unload("a")
    world.exited("a")
    ticket = world.want("a")
    world.fails("a")
    assert world.refusal(ticket).retry_after == 1


def test_a_lost_engine_takes_no_new_request():
    world = World(a_model("a"))
    world.serve("a")
    world.lost("a")
    ticket = world.want("a")
    assert world.asked(ticket).waits
    assert world.ended("a") == []


def test_an_engine_that_dies_while_it_drains_has_failed_and_its_model_comes_back():
    world = World(a_model("a", 6), a_model("b", 6, queue=QueuePolicy(patience=Seconds(0.0))))
    world.serve("a")
    world.advance(60)
    world.want("b")
    ticket = world.want("a")
    world.fails("a")
    assert world.starting() == {"b"}
    assert world.asked(ticket).waits


def test_a_failed_start_of_one_model_gives_its_room_to_the_next():
    world = World(a_model("a", 6), a_model("b", 6))
    world.want("a")
    ticket = world.want("b")
    world.fails("a")
    world.ready("b")
    assert world.asked(ticket).granted


def test_what_an_engine_says_of_its_start_is_kept_while_it_starts():
    world = World(a_model("a"))
    world.want("a")
    life = world.id_of("a")
    world.tell(e.PhaseReached(life, "loading weights"))
    assert world.fleet.instances[life].phase == "loading weights"
    world.ready("a")
    world.tell(e.PhaseReached(life, "late"))
    assert world.fleet.instances[life].phase == ""


def test_a_failure_names_how_the_process_ended():
    assert CRASH.how() == "exit status 0"
    killed = Failure(cause=FailureCause.KILLED, detail="killed", signal=9)
    assert killed.how() == "signal 9"
    assert Failure(cause=FailureCause.TIMEOUT, detail="late").how() == "no exit status"
