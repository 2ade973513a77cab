"""The paths and methods of the public face, as data, and the matching of a request. Pure.

Must not know aiohttp: a route is found before anything else about a request is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from sparkd.core.catalogue import Task
from sparkd.errors import MethodNotAllowedError, RequestError, RouteNotFoundError


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What an engine answers under `/v1/`; `task` is what its model must be able to do."""

    path: str
    task: Task


#: Longest first: `/v1/m/chat/completions` is a chat with `m`, no completion with `m/chat`.
ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("chat/completions", Task.GENERATE),
    Endpoint("completions", Task.GENERATE),
    Endpoint("embeddings", Task.EMBED),
)

READ = ("GET", "HEAD")
POST = ("POST",)


@dataclass(frozen=True, slots=True)
class Healthz:
    """Is the daemon there?"""


@dataclass(frozen=True, slots=True)
class ListModels:
    """The catalogue."""


@dataclass(frozen=True, slots=True)
class ShowModel:
    """One entry of it."""

    name: str


@dataclass(frozen=True, slots=True)
class Infer:
    """To be answered by an engine; `model` is the one in the path, if any."""

    endpoint: Endpoint
    model: str | None


Target = Healthz | ListModels | ShowModel | Infer


def match(method: str, raw_path: str) -> Target:
    """`raw_path` as it was sent, percent-encoded, without the query.

    Raises RouteNotFoundError, MethodNotAllowedError, and RequestError for undecodable text.
    """
    target = _target(raw_path)
    allowed = POST if isinstance(target, Infer) else READ
    if method not in allowed:
        raise MethodNotAllowedError(f"cannot {method} {_shown(raw_path)}", allowed=allowed)
    return target


def _target(path: str) -> Target:
    if path == "/healthz":
        return Healthz()
    if path.startswith("/v1/"):
        rest = path.removeprefix("/v1/")
        if rest == "models":
            return ListModels()
        if rest.startswith("models/") and rest != "models/":
            return ShowModel(_name(rest.removeprefix("models/")))
        if infer := _infer(rest, ENDPOINTS):
            return infer
    raise RouteNotFoundError(
        f"cannot find a route for {_shown(path)}", hint="/v1/chat/completions is one"
    )


def _infer(rest: str, endpoints: Sequence[Endpoint]) -> Infer | None:
    for endpoint in endpoints:
        if rest == endpoint.path:
            return Infer(endpoint, None)
    for endpoint in endpoints:
        name = rest.removesuffix("/" + endpoint.path)
        if name and name != rest:
            return Infer(endpoint, _name(name))
    return None


def _name(encoded: str) -> str:
    try:
        return unquote(encoded, errors="strict")
    except UnicodeDecodeError:
        raise RequestError("cannot read the path: it is not percent-encoded UTF-8") from None


def _shown(path: str) -> str:
    """The path as an error may quote it."""
    return path if len(path) <= 200 else path[:200] + "…"
