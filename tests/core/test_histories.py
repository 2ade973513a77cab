"""A thousand random histories, every invariant after every step, and an end for every ticket."""

from __future__ import annotations

import os

import pytest

from sparkd.core.decisions import Decision, Drain, Refuse, Stop
from sparkd.core.instance import Reason
from tests.core.history import History

#: The planted faults run fewer of them: they need to be caught, not to be proven absent.
COUNT = int(os.environ.get("SPARKD_HISTORIES", "1000"))
STEPS = 35
BATCHES = 10


@pytest.mark.parametrize("batch", range(BATCHES))
def test_every_invariant_holds_and_every_ticket_ends_in_random_histories(batch: int):
    for seed in range(batch, COUNT, BATCHES):
        try:
            _live_through(seed)
        except (AssertionError, RuntimeError) as fault:
            fault.add_note(f"in the history with seed {seed}")
            raise


def test_the_histories_meet_every_kind_of_decision():
    """Invariants of what never happens would hold for ever."""
    met: set[str] = set()
    for seed in range(min(COUNT, 80)):
        met |= _live_through(seed)
    reasons = {f"Stop {reason}" for reason in Reason if reason is not Reason.FAILED}
    drains = {"Drain starved", "Drain unloaded", "Drain reconfigured", "Drain shutdown"}
    refusals = {
        "BackingOffError", "ModelRemovedError", "ModelUnloadedError", "NeverFitsError",
        "QueueFullError", "QueueTimeoutError", "ShuttingDownError", "StartFailedError",
        "StartTimeoutError",
    }  # fmt: skip
    assert met >= reasons | drains | refusals


def _live_through(seed: int) -> set[str]:
    """The kinds of decisions and refusals that were met."""
    history = History(seed)
    history.run(STEPS)
    history.calm_down()
    if seed % 2:
        history.run(STEPS // 5)
    history.shut_down()
    for asked in history.world.truth.asked.values():
        ends = (asked.granted is not None, asked.refused is not None, asked.cancelled)
        assert sum(ends) == 1, f"it did not end exactly once: {asked}"
    return {_kind(decision) for decision in history.world.decisions}


def _kind(decision: Decision) -> str:
    match decision:
        case Stop(reason=reason) | Drain(reason=reason):
            return f"{type(decision).__name__} {reason}"
        case Refuse(error=error):
            return type(error).__name__
        case _:
            return type(decision).__name__
