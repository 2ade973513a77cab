"""The memory pool as numbers. Pure: probes in `sparkd.host` read the machine."""

from __future__ import annotations

from dataclasses import dataclass

from sparkd.core.quantities import GIB, Bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryView:
    """One reading of a pool. `available` is what could be taken now without pushing others out."""

    total: Bytes
    available: Bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """What the ledger may hand out: budgets sum up to `limit`; `reserve` stays with the host."""

    limit: Bytes
    reserve: Bytes


def default_reserve(total: int) -> Bytes:
    """8 GiB on a Spark, a tenth of smaller machines."""
    return Bytes(min(8 * GIB, total // 10))
