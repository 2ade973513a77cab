"""`sparkctl load` and `sparkctl unload`: the operator's verbs, and the line that shows how far."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, cast

import typer

from sparkd.cli.client import TICK_SECONDS, Client, model_path
from sparkd.cli.failures import CommandError, interrupted
from sparkd.cli.invocation import Invocation, JsonFlag, ModelName, print_json
from sparkd.cli.terminal import MovingLine, age, harmless

if TYPE_CHECKING:
    from sparkd.api.shapes import ModelShape, UnloadShape

NoWait = Annotated[bool, typer.Option("--no-wait", help="Return without waiting for the end.")]
Now = Annotated[bool, typer.Option("--now", help="Do not wait for running answers to end.")]


def load(
    ctx: typer.Context, model: ModelName, no_wait: NoWait = False, json: JsonFlag = False
) -> None:
    """Load a model, and wait until it is ready."""
    call = Invocation.of(ctx, json)
    progress = _Progress(call.client, model, "loading")
    try:
        answer = call.client.post(
            model_path(model, "/load"), {"wait": not no_wait}, tick=progress.tick
        )
    except KeyboardInterrupt as error:
        progress.line.clear()
        raise interrupted(
            f"no longer waiting: '{model}' goes on loading",
            hint=f"stop it with: sparkctl unload {model} --now",
        ) from error
    finally:
        progress.line.clear()
    loaded = cast("ModelShape", answer)
    if call.as_json:
        print_json(loaded)
    else:
        took = progress.elapsed
        after = f" after {age(took)}" if took >= 1 and not no_wait else ""
        print(harmless(f"{loaded['id']} is {loaded['state']}{after}"))


def unload(
    ctx: typer.Context,
    model: ModelName,
    now: Now = False,
    no_wait: NoWait = False,
    json: JsonFlag = False,
) -> None:
    """Unload a model, after the answers it is giving have ended."""
    call = Invocation.of(ctx, json)
    progress = _Progress(call.client, model, "unloading")
    try:
        answer = call.client.post(
            model_path(model, "/unload"), {"now": now, "wait": not no_wait}, tick=progress.tick
        )
    except KeyboardInterrupt as error:
        progress.line.clear()
        raise interrupted(f"no longer waiting: '{model}' goes on unloading") from error
    finally:
        progress.line.clear()
    outcome = cast("UnloadShape", answer)
    if call.as_json:
        print_json(outcome)
    else:
        print(harmless(_outcome(outcome)))


def _outcome(outcome: UnloadShape) -> str:
    model, state = outcome["model"]["id"], outcome["model"]["state"]
    if not outcome["unloaded"]:
        return f"{model} was not loaded"
    return f"{model} is unloaded" if state == "cold" else f"{model} is {state}"


class _Progress:
    """Asks how far it is, once a second, only where a person watches."""

    def __init__(self, client: Client, model: str, verb: str):
        self.line = MovingLine()
        self._client = client
        self._model = model
        self._verb = verb
        self._began = time.monotonic()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._began

    def tick(self) -> None:
        if not self.line.is_shown:
            return
        try:
            answer = self._client.get(model_path(self._model), timeout=TICK_SECONDS)
        except CommandError:
            return  # the answer that is waited for says why
        self.line.show(self._text(cast("ModelShape", answer)))

    def _text(self, model: ModelShape) -> str:
        estimate = model["estimate_seconds"]
        parts = [
            f"{self._verb} {model['id']}: {model['phase'] or model['state']}",
            age(self.elapsed),
            f"about {age(estimate)} left" if estimate is not None else "",
        ]
        return ", ".join(part for part in parts if part)
