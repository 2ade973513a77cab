"""From fleets to JSON: values only, no server."""

from __future__ import annotations

from dataclasses import replace

from sparkd.api.shapes import StatusShape
from sparkd.api.views import failure_view, model_view, status_view, waiting_view
from sparkd.core.fleet import Fleet, Ticket
from sparkd.core.instance import Reason, State, TicketId
from sparkd.core.memory import Pool
from sparkd.core.quantities import GIB, Bytes, Instant, Seconds
from tests.api.fakes import (
    BROKEN,
    COLD,
    GEMMA,
    NOW,
    QWEN,
    FakeOperations,
    busy_fleet,
    empty_fleet,
    instance,
)


def status_of(fleet: Fleet) -> StatusShape:
    return status_view(fleet, NOW, version="1", pid=7, uptime=Seconds(3.14159))


def test_the_pool_shows_the_ledger_and_the_last_reading():
    assert status_of(busy_fleet())["pool"] == {
        "limit_bytes": 110 * GIB,
        "reserve_bytes": 8 * GIB,
        "charged_bytes": 64 * GIB,
        "headroom_bytes": 46 * GIB,
        "total_bytes": 120 * GIB,
        "available_bytes": 50 * GIB,
    }


def test_memory_that_was_never_read_is_null_and_not_zero():
    pool = status_of(empty_fleet())["pool"]
    assert pool["available_bytes"] is None
    assert pool["total_bytes"] is None


def test_headroom_is_negative_after_the_limit_was_lowered():
    smaller = replace(busy_fleet(), pool=Pool(limit=Bytes(60 * GIB), reserve=Bytes(0)))
    assert status_of(smaller)["pool"]["headroom_bytes"] == -4 * GIB


def test_an_instance_shows_how_long_it_has_been_what_it_is():
    ready, starting = status_of(busy_fleet())["instances"]
    assert (ready["started_seconds"], ready["ready_seconds"]) == (800.0, 750.0)
    assert (ready["in_flight"], ready["served"], ready["idle_seconds"]) == (2, 7, None)
    assert (starting["state"], starting["phase"]) == ("starting", "loading weights 40%")
    assert starting["ready_seconds"] is None


def test_a_draining_instance_says_why_and_how_long_it_has_been_idle():
    draining = replace(
        instance(QWEN, State.DRAINING, started=90, ready=80),
        reason=Reason.UNLOADED,
        idle_since=Instant(NOW - 4),
    )
    (shown,) = status_of(replace(empty_fleet(), instances={draining.id: draining}))["instances"]
    assert (shown["reason"], shown["idle_seconds"]) == ("unloaded", 4.0)


def test_waiting_requests_are_counted_per_model_longest_wait_first():
    fleet = busy_fleet()
    late = Ticket(id=TicketId(9), model=COLD.id, arrived_at=Instant(NOW - 60))
    assert waiting_view(replace(fleet, tickets={**fleet.tickets, late.id: late}), NOW) == [
        {"model": "cold-one", "requests": 1, "oldest_seconds": 60.0},
        {"model": "gemma", "requests": 2, "oldest_seconds": 12.0},
    ]


def test_a_failed_model_says_why_and_when_it_is_tried_again():
    assert failure_view(busy_fleet(), BROKEN.id, NOW) == {
        "model": "broken",
        "cause": "bad_flag",
        "detail": "no such flag: --foo",
        "failures": 3,
        "retry_in_seconds": 25.0,
    }
    later = failure_view(busy_fleet(), BROKEN.id, Instant(NOW + 100))
    assert later is not None
    assert later["retry_in_seconds"] == 0.0


def test_a_failure_that_was_forgiven_is_not_shown():
    fleet = busy_fleet()
    forgiven = replace(fleet.histories[BROKEN.id], failures=0, not_before=None)
    assert failure_view(replace(fleet, histories={BROKEN.id: forgiven}), BROKEN.id, NOW) is None


def test_a_stopping_daemon_says_so():
    assert status_of(replace(busy_fleet(), closing=NOW))["stopping"] is True
    assert status_of(busy_fleet())["stopping"] is False


def test_a_model_shows_its_entry_its_state_and_its_instance():
    operations = FakeOperations()
    shown = model_view(operations.fleet, GEMMA, operations.progress(GEMMA.id), NOW)
    assert (shown["state"], shown["phase"]) == ("starting", "loading weights 40%")
    assert (shown["estimate_seconds"], shown["waiting"]) == (30.0, 2)
    assert shown["instance"] is not None
    assert shown["instance"]["id"] == "gemma-life"


def test_a_cold_model_has_no_instance_and_no_failure():
    operations = FakeOperations()
    shown = model_view(operations.fleet, COLD, operations.progress(COLD.id), NOW)
    assert (shown["state"], shown["instance"], shown["failure"]) == ("cold", None, None)
    assert (shown["runtime"], shown["max_model_len"]) == ("vllm-cpu", 4096)


def test_a_model_never_shows_where_its_weights_are():
    operations = FakeOperations()
    shown = model_view(operations.fleet, QWEN, operations.progress(QWEN.id), NOW)
    assert "/weights" not in str(shown)
