"""How long a model whose starts fail is left alone. Pure.

The first failures cost seconds, so that a single crash hardly shows; from the third on a breaker
refuses at once with the cause instead of letting every request pay for a start that will fail.
"""

from __future__ import annotations

from sparkd.core.quantities import Seconds

#: From this many failures in a row on, requests are refused until the pause is over.
BREAKER_AFTER = 3
#: An instance that was ready this long was healthy: its death starts a new count.
HEALTHY_AFTER = Seconds(60.0)

_FIRST_PAUSES = (Seconds(1.0), Seconds(2.0))
_BREAKER_PAUSE = 30.0
_LONGEST_PAUSE = 600.0


def pause_after(failures: int) -> Seconds:
    """Seconds without a start after the n-th failure in a row; 30 s doubling to 10 min at last."""
    if failures < BREAKER_AFTER:
        return _FIRST_PAUSES[failures - 1]
    doublings = min(failures - BREAKER_AFTER, 10)
    return Seconds(min(_BREAKER_PAUSE * 2**doublings, _LONGEST_PAUSE))
