"""The ledger decides, the probe may veto."""

from __future__ import annotations

from sparkd.core.catalogue import Role
from sparkd.core.memory import default_reserve
from sparkd.core.quantities import GIB
from tests.core.truth import a_model, gib
from tests.core.world import World


def test_a_start_waits_for_a_reading():
    world = World(a_model("a"), answers_memory=False)
    world.want("a")
    assert world.kinds(world.last) == ["read memory"]
    assert world.advance(100) == []
    assert world.kinds(world.answer_memory()) == ["read memory"], "that one took too long"
    assert world.kinds(world.answer_memory()) == ["start a"]


def test_a_reading_serves_all_starts_of_the_next_second():
    world = World(a_model("a", 2), a_model("b", 2), a_model("c", 2))
    world.want("a")
    world.advance(0.99)
    world.want("b")
    assert world.kinds(world.last) == ["start b"]
    world.advance(0.01)
    world.want("c")
    assert world.kinds(world.last) == ["read memory", "start c"]


def test_a_reading_asked_for_before_an_exit_says_nothing_about_the_time_after_it():
    world = World(a_model("a", 5), a_model("b", 5), a_model("c", 5), answers_memory=False)
    world.want("a")
    world.answer_memory()
    world.ready("a")
    world.advance(10)
    world.want("b")
    world.advance(0.1)
    world.fails("a")
    assert world.kinds(world.answer_memory()) == ["read memory"]
    assert world.kinds(world.answer_memory()) == ["start b"]


def test_a_fresh_reading_from_before_an_exit_is_not_used():
    world = World(a_model("a", 5), a_model("b", 5))
    world.want("a")
    world.ready("a")
    world.advance(0.5)
    world.fails("a")
    world.want("b")
    assert world.kinds(world.last) == ["read memory", "start b"]


def test_memory_that_others_took_vetoes_a_start_until_it_is_back():
    world = World(a_model("a", 6), limit=10, reserve=1)
    world.truth.machine.foreign = 4.5
    world.want("a")
    assert world.kinds(world.last) == ["read memory"]
    assert world.kinds(world.advance(3)) == ["read memory"] * 3
    world.truth.machine.foreign = 4
    assert world.kinds(world.advance(1)) == ["read memory", "start a"]


def test_the_reserve_stays_with_the_host():
    world = World(a_model("a", 10), limit=10, reserve=1, total=10.5)
    world.want("a")
    assert world.starting() == set()
    world.truth.machine.total = 11
    world.advance(1)
    assert world.starting() == {"a"}


def test_a_starting_model_counts_with_all_it_may_yet_take():
    world = World(a_model("a", 5), a_model("b", 5), limit=10, total=9)
    world.want("a")
    world.want("b")
    assert world.starting() == {"a"}, "the machine has 9 free, of which a will take 5"


def test_a_model_that_got_ready_after_the_reading_still_counts():
    world = World(a_model("a", 5), a_model("b", 5), limit=10, total=9)
    world.want("a")
    world.advance(0.5)
    world.ready("a")
    world.want("b")
    assert world.starting() == set()


def test_a_failed_reading_starts_nothing_and_is_repeated():
    world = World(a_model("a"), a_model("free", 0))
    world.truth.machine.broken = True
    world.want("a")
    world.want("free")
    assert world.kinds(world.advance(2)) == ["read memory", "read memory"]
    assert world.starting() == set()
    world.truth.machine.broken = False
    world.advance(1)
    assert world.starting() == {"a", "free"}


def test_a_failed_reading_evicts_nobody():
    world = World(a_model("a", 3), a_model("b", 3))
    world.idle("a")
    world.truth.machine.broken = True
    world.want("b")
    world.advance(5)
    assert world.leaving() == {}


def test_memory_that_a_stop_released_has_to_be_seen_to_be_back():
    world = World(a_model("a", 6), a_model("b", 6))
    world.idle("a")
    world.want("b")
    world.truth.machine.unreturned = 6
    world.exited("a")
    world.advance(2)
    assert world.starting() == set()
    world.truth.machine.unreturned = 0
    world.advance(1)
    assert world.starting() == {"b"}


def test_idle_ones_make_room_where_only_the_machine_lacks_it():
    world = World(a_model("a", 4), a_model("b", 4), limit=10)
    world.idle("a")
    world.truth.machine.foreign = 3
    world.want("b")
    assert world.leaving() == {"a": "evicted"}
    world.advance(0.5)
    world.exited("a")
    assert world.starting() == {"b"}


def test_idle_ones_stay_where_their_room_would_not_make_up_for_what_others_took():
    world = World(a_model("a", 2), a_model("b", 7), limit=10)
    world.idle("a")
    world.truth.machine.foreign = 4
    world.want("b")
    assert world.leaving() == {}


def test_what_leaves_is_awaited_before_more_has_to_go_for_the_machine():
    world = World(a_model("a", 2), a_model("b", 2), a_model("c", 4), limit=10)
    world.idle("a")
    world.idle("b")
    world.unload("a")
    world.truth.machine.foreign = 4
    world.want("c")
    assert world.leaving().keys() == {"a"}
    world.advance(0.5)
    world.exited("a")
    assert world.starting() == {"c"}


def test_a_busy_or_pinned_model_never_goes_for_memory_that_others_took():
    world = World(a_model("p", 2, role=Role.PINNED), a_model("a", 2), a_model("b", 4), limit=10)
    world.ready("p")
    world.serve("a")
    world.truth.machine.foreign = 4
    world.want("b")
    world.advance(1000)
    assert world.leaving() == {}


def test_a_small_model_may_pass_one_that_only_the_machine_lacks_room_for():
    """By the ledger both fit: whoever took the memory delays the first, not the second."""
    world = World(a_model("a", 6), a_model("b", 2), limit=10)
    world.truth.machine.foreign = 5
    world.want("a")
    world.want("b")
    assert world.starting() == {"b"}


def test_a_waiting_ticket_that_leaves_ends_the_repeated_readings():
    world = World(a_model("a", 6))
    world.truth.machine.foreign = 9
    ticket = world.want("a")
    world.cancel(ticket)
    assert world.look_again_at is None


def test_the_reserve_is_8_gib_at_most_and_a_tenth_of_smaller_machines():
    assert default_reserve(gib(128)) == 8 * GIB
    assert default_reserve(gib(40)) == 4 * GIB
    assert default_reserve(gib(80)) == 8 * GIB
