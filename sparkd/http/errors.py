"""The one table from an error's class to its HTTP status and OpenAI `type`, and its rendering.

Must not decide anything: which error is raised is the business of those who raise it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from sparkd import errors

#: The most of an engine's log that an error carries. Source: dgx-spark-inference-stack 4df5a64.
LOG_TAIL_LINES, LOG_TAIL_CHARACTERS = 60, 8000


@dataclass(frozen=True, slots=True)
class Face:
    """How a class of errors looks to clients: HTTP status and the OpenAI object's `type`."""

    status: int
    type: str


_INVALID = "invalid_request_error"
_BUSY = "service_unavailable_error"
_BAD_REQUEST = Face(400, _INVALID)
_UNAVAILABLE = Face(503, _BUSY)

#: Every class of the tree is here, subclasses too: a test fails when a new one is forgotten.
FACES: Mapping[type[errors.SparkdError], Face] = {
    errors.SparkdError: Face(500, "api_error"),
    errors.ConfigError: _BAD_REQUEST,
    errors.RequestError: _BAD_REQUEST,
    errors.InvalidJsonError: _BAD_REQUEST,
    errors.MissingModelError: _BAD_REQUEST,
    errors.BodyTooLargeError: Face(413, _INVALID),
    errors.HeadersTooLargeError: Face(431, _INVALID),
    errors.UnsupportedMediaTypeError: Face(415, _INVALID),
    errors.RouteNotFoundError: Face(404, "not_found_error"),
    errors.TaskNotSupportedError: Face(404, "not_found_error"),
    errors.MethodNotAllowedError: Face(405, _INVALID),
    errors.PermissionDeniedError: Face(403, "permission_error"),
    errors.ModelNotFoundError: Face(404, "not_found_error"),
    errors.ModelUnavailableError: _UNAVAILABLE,
    errors.AdmissionError: _UNAVAILABLE,
    errors.QueueFullError: Face(429, "rate_limit_error"),
    errors.QueueTimeoutError: _UNAVAILABLE,
    errors.NeverFitsError: _UNAVAILABLE,
    errors.BackingOffError: _UNAVAILABLE,
    errors.ModelUnloadedError: _UNAVAILABLE,
    errors.ModelRemovedError: Face(404, "not_found_error"),
    errors.ShuttingDownError: _UNAVAILABLE,
    errors.InstanceError: Face(502, "api_error"),
    errors.StartFailedError: _UNAVAILABLE,
    errors.StartTimeoutError: Face(504, "api_error"),
    errors.UpstreamLostError: Face(502, "api_error"),
    errors.HostError: _UNAVAILABLE,
    errors.ProvisionError: Face(500, "api_error"),
}


def face_of(error: errors.SparkdError) -> Face:
    """The nearest class's entry, so that an error of a plug-in's own class has a face too."""
    return next(FACES[cls] for cls in type(error).__mro__ if cls in FACES)


def error_object(error: errors.SparkdError) -> dict[str, object]:
    """OpenAI's object. All four keys are always there; some errors add facts of their own."""
    inner: dict[str, object] = {
        "message": error.sentence(),
        "type": face_of(error).type,
        "param": error.param if isinstance(error, errors.RequestError) else None,
        "code": error.code,
    }
    match error:
        case errors.StartFailedError():
            inner |= {"cause": error.cause, "log_tail": _clipped(error.log_tail)}
        case errors.ConfigError():
            inner["problems"] = [
                {"where": p.where, "message": p.message, "hint": p.hint} for p in error.problems
            ]
        case _:
            pass
    return {"error": inner}


def error_json(error: errors.SparkdError) -> bytes:
    """The object on one line, as it stands in a body or an SSE event."""
    return json.dumps(error_object(error), ensure_ascii=False).encode("utf-8", "replace")


def error_headers(error: errors.SparkdError) -> dict[str, str]:
    """`Retry-After` in whole seconds, never 0, and `Allow` where they apply."""
    headers: dict[str, str] = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if isinstance(error, errors.MethodNotAllowedError):
        headers["Allow"] = ", ".join(error.allowed)
    return headers


def render(error: errors.SparkdError) -> web.Response:
    """The whole answer."""
    return web.Response(
        status=face_of(error).status,
        headers=error_headers(error),
        body=error_json(error),
        content_type="application/json",
    )


def _clipped(lines: tuple[str, ...]) -> list[str]:
    kept: list[str] = []
    room = LOG_TAIL_CHARACTERS
    for line in reversed(lines[-LOG_TAIL_LINES:]):
        room -= len(line) + 1
        if room < 0:
            break
        kept.append(line)
    return kept[::-1]
