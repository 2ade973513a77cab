"""OpenAI's shapes that sparkd itself speaks: the model list, and engine errors put right. Pure."""

from __future__ import annotations

import json

from sparkd.core.catalogue import Model
from sparkd.core.fleet import Fleet
from sparkd.core.quantities import Instant
from sparkd.core.status import state_of
from sparkd.errors import MethodNotAllowedError, SparkdError, TaskNotSupportedError
from sparkd.gateway.routes import POST, Endpoint


def model_entry(model: Model, fleet: Fleet, now: Instant, created: int) -> dict[str, object]:
    """One model as a client sees it, cold or not. No path of this machine is in it."""
    return {
        "id": model.id,
        "object": "model",
        "created": created,
        "owned_by": "sparkd",
        "max_model_len": model.launch.max_model_len,
        "aliases": list(model.aliases),
        "state": state_of(fleet, model.id, now).value,
        "role": model.role.value,
        "task": model.launch.task.value,
        "description": model.description,
    }


def model_list(fleet: Fleet, now: Instant, created: int) -> dict[str, object]:
    """The whole catalogue, in its own order."""
    entries = [model_entry(model, fleet, now, created) for model in fleet.catalogue]
    return {"object": "list", "data": entries}


def check_task(model: Model, endpoint: Endpoint) -> None:
    """Raises TaskNotSupportedError: the engine would only say `Not Found`, after a cold start."""
    if model.launch.task is not endpoint.task:
        raise TaskNotSupportedError(
            f"cannot use model '{model.id}' for /v1/{endpoint.path}: its task is "
            f"'{model.launch.task}', not '{endpoint.task}'",
            param="model",
        )


def from_engine(status: int, body: bytes, model: Model, endpoint: Endpoint) -> SparkdError | None:
    """FastAPI's own `{"detail": …}` as an error of ours; None for what is the engine's to say.

    Source: vLLM 0.32.0 answers so for a route that its model's task lacks, and for a wrong method.
    """
    if status not in (404, 405) or not _is_detail(body):
        return None
    if status == 405:
        return MethodNotAllowedError(f"cannot POST to /v1/{endpoint.path}", allowed=POST)
    return TaskNotSupportedError(
        f"cannot use model '{model.id}' for /v1/{endpoint.path}: its engine has no such route",
        param="model",
    )


def says_engine_is_dead(body: bytes) -> bool:
    """Whether an error of the engine means that it will never answer again.

    Source: vLLM 0.32.0; the last one is what a server says that is on its way out.
    """
    return any(words in body for words in _LAST_WORDS)


_LAST_WORDS = (
    b"EngineCore encountered an issue",
    b"EngineDeadError",
    b"cannot schedule new futures after shutdown",
)


def _is_detail(body: bytes) -> bool:
    try:
        answer = json.loads(body)
    except ValueError:
        return False
    return isinstance(answer, dict) and answer.keys() == {"detail"}
