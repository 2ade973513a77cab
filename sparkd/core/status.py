"""The public word for a model's state, derived from the fleet. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import assert_never

from sparkd.core.catalogue import ModelId
from sparkd.core.fleet import Fleet
from sparkd.core.instance import State
from sparkd.core.quantities import Instant
from sparkd.core.room import resting_until


class ModelState(StrEnum):
    """What status commands and `/v1/models` show."""

    COLD = "cold"
    QUEUED = "queued"  # asked for, waits for its turn or for memory
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    FAILED = "failed"  # its last start failed, and it is left alone for a while


def state_of(fleet: Fleet, model_id: ModelId, now: Instant) -> ModelState:
    instance = fleet.instance_of(model_id)
    if instance is None:
        return _state_without_instance(fleet, model_id, now)
    match instance.state:
        case State.STARTING:
            return ModelState.STARTING
        case State.READY:
            return ModelState.READY
        case State.DRAINING:
            return ModelState.DRAINING
        case State.STOPPING:
            return ModelState.STOPPING
        case _:
            assert_never(instance.state)


def _state_without_instance(fleet: Fleet, model_id: ModelId, now: Instant) -> ModelState:
    if resting_until(fleet, model_id, now) is not None:
        return ModelState.FAILED
    return ModelState.QUEUED if fleet.waiting_for(model_id) else ModelState.COLD
