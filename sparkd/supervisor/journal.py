"""The log of what the core decided: one instance's life at INFO in at most six lines.

The core does not log; this module reads the fleet before and after an event and says what changed.
Prompts and answers never come near it.
"""

from __future__ import annotations

import logging
from typing import assert_never

from sparkd.core import decisions as d
from sparkd.core import events as e
from sparkd.core.fleet import Fleet
from sparkd.core.instance import Instance, InstanceId, State
from sparkd.core.planner import Settled
from sparkd.core.quantities import Instant, format_duration, format_size

log = logging.getLogger("sparkd.fleet")


def tell(before: Fleet, event: e.Event, settled: Settled, now: Instant) -> None:
    _tell_event(before, event, now)
    for decision in settled.decisions:
        _tell_decision(settled.fleet, decision, now)


def _tell_event(before: Fleet, event: e.Event, now: Instant) -> None:
    match event:
        case e.InstanceReady(instance_id):
            if (instance := before.instances.get(instance_id)) is not None:
                took = format_duration(now - instance.started_at)
                _say(instance, f"Ready after {took}")
        case e.EngineLost(instance_id, failure):
            instance = before.instances.get(instance_id)
            if instance is not None and instance.state is not State.STOPPING:
                doing = f"while {instance.state}"
                _say(
                    instance,
                    f"Lost {doing}: {failure.detail} ({failure.cause}, {failure.how()})",
                    logging.WARNING,
                )
        case e.InstanceExited(instance_id, failure):
            if (instance := before.instances.get(instance_id)) is not None:
                if failure is not None:
                    _say(instance, f"Cannot launch it: {failure.detail}", logging.WARNING)
                lived = format_duration(now - instance.started_at)
                _say(instance, f"Gone after {lived}, {instance.served} requests served")
        case e.CatalogueReplaced(catalogue):
            log.info("Configuration replaced: %d models", len(catalogue))
        case _:
            pass


def _tell_decision(after: Fleet, decision: d.Decision, now: Instant) -> None:
    match decision:
        case d.Start(instance_id, model):
            _say_id(after, instance_id, f"Starting, budget {format_size(model.budget)}")
        case d.Drain(instance_id, reason, until):
            bound = "" if until is None else f", at most {format_duration(until - now)}"
            _say_id(after, instance_id, f"Draining ({reason}){bound}")
        case d.Stop(instance_id, reason):
            _say_id(after, instance_id, f"Stopping ({reason})")
        case d.Refuse(ticket, error):
            log.info("Refused request %d: %s", ticket, error.message)
        case d.Grant() | d.ReadMemory():
            log.debug("%s", decision)
        case _:
            assert_never(decision)


def _say_id(fleet: Fleet, instance_id: InstanceId, text: str) -> None:
    _say(fleet.instances[instance_id], text)


def _say(instance: Instance, text: str, level: int = logging.INFO) -> None:
    log.log(
        level,
        "%s [%s] %s",
        instance.model,
        instance.id,
        text,
        extra={"model": instance.model, "instance": instance.id},
    )
