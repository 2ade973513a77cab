"""`sparkctl` is typed by people and called in loops: it must be there at once."""

from __future__ import annotations

import re
import resource

from tests.cli.conftest import Sparkctl

#: Each would cost more than the rest of the command, and none is needed to ask a question.
_SLOW = {"aiohttp", "asyncio", "sparkd.api", "sparkd.http", "sparkd.supervisor"}


async def test_a_command_imports_nothing_of_the_daemon(sparkctl):
    watched = Sparkctl(sparkctl.socket, ("-X", "importtime", *sparkctl.program))
    ended = await watched("status")
    assert ended.code == 0
    imported = set(re.findall(r"\|\s*([\w.]+)$", ended.err, flags=re.MULTILINE))
    assert "sparkd.cli.status" in imported, "the list of imports could not be read"
    assert not _SLOW & imported


async def test_status_costs_less_than_300_ms(sparkctl):
    """Processor time of the best of several: what it costs, not what the machine does besides."""
    costs = []
    for _ in range(8):
        before = _children_seconds()
        assert (await sparkctl("status")).code == 0
        costs.append(_children_seconds() - before)
    assert min(costs) < 0.3


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
