"""The control application: its routes as data, and the one place that checks access and renders."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPMethod

from aiohttp import web
from aiohttp.typedefs import Handler

from sparkd.api import handlers
from sparkd.api.access import Access, Administrators, Gate, gate_for
from sparkd.api.handlers import Control
from sparkd.api.ports import LogSource, Operations, Reload

PREFIX = "/sparkd/v1"

#: No request of this face has a body worth more.
MAX_BODY = 64 * 1024

#: A JSON-ready object, or an answer that renders itself.
Answer = Mapping[str, object] | web.StreamResponse
Call = Callable[[Control, web.Request], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the control API. In the path, `{id}` is an id or alias, percent-encoded."""

    method: HTTPMethod
    path: str
    access: Access
    call: Call


ROUTES = (
    Route(HTTPMethod.GET, "/status", Access.READ, handlers.get_status),
    Route(HTTPMethod.GET, "/models", Access.READ, handlers.list_models),
    Route(HTTPMethod.GET, "/models/{id}", Access.READ, handlers.get_model),
    Route(HTTPMethod.POST, "/models/{id}/load", Access.ADMINISTER, handlers.load_model),
    Route(HTTPMethod.POST, "/models/{id}/unload", Access.ADMINISTER, handlers.unload_model),
    # Engines print paths and, when told to, prompts: not for every local user.
    Route(HTTPMethod.GET, "/models/{id}/logs", Access.ADMINISTER, handlers.get_logs),
    Route(HTTPMethod.POST, "/reload", Access.ADMINISTER, handlers.reload_configuration),
)


def make_api(
    operations: Operations,
    *,
    logs: LogSource,
    reload: Reload,
    version: str,
    administrators: Administrators | None = None,
) -> web.Application:
    """The application for the control socket; served by `sparkd.http.runner`, which shows errors.

    `administrators`: those of this machine when None.
    """
    control = Control(
        operations=operations,
        logs=logs,
        reload=reload,
        version=version,
        started_at=operations.now(),
    )
    gate = gate_for(administrators or Administrators.of_this_machine())
    app = web.Application(client_max_size=MAX_BODY)
    for route in ROUTES:
        app.router.add_route(route.method, PREFIX + route.path, _endpoint(route, control, gate))

    async def cut_followers(_app: web.Application) -> None:
        for task in tuple(control.followers):
            task.cancel("the daemon stops")

    app.on_shutdown.append(cut_followers)
    return app


def _endpoint(route: Route, control: Control, gate: Gate) -> Handler:
    async def endpoint(request: web.Request) -> web.StreamResponse:
        gate(request, route.access)
        answer = await route.call(control, request)
        if isinstance(answer, web.StreamResponse):
            return answer
        return web.json_response(answer)

    return endpoint
