"""What each control route does: one supervisor call and one view. It checks no access.

A client that goes away cancels its handler: that ends the waiting, never the load it asked for.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiohttp import web

from sparkd.api.ports import LogSource, Operations, Reload
from sparkd.api.shapes import ModelShape, ModelsShape, ReloadShape, StatusShape, UnloadShape
from sparkd.api.views import model_view, reload_view, status_view
from sparkd.core.catalogue import Model
from sparkd.core.quantities import Instant, Seconds
from sparkd.errors import InvalidJsonError, RequestError

DEFAULT_LINES = 100
MAX_LINES = 10_000

_PLAIN = {"Content-Type": "text/plain; charset=utf-8"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """What the handlers work with. `followers` are the requests that never end by themselves."""

    operations: Operations
    logs: LogSource
    reload: Reload
    version: str
    started_at: Instant
    followers: set[asyncio.Task[object]] = field(default_factory=set)

    def view(self, model: Model) -> ModelShape:
        operations = self.operations
        return model_view(operations.fleet, model, operations.progress(model.id), operations.now())

    @contextmanager
    def following(self) -> Iterator[None]:
        """Registers the calling request to be cut when the daemon stops."""
        task = asyncio.current_task()
        assert task is not None  # aiohttp runs every handler in a task
        self.followers.add(task)
        try:
            yield
        finally:
            self.followers.discard(task)


async def get_status(control: Control, request: web.Request) -> StatusShape:
    now = control.operations.now()
    return status_view(
        control.operations.fleet,
        now,
        version=control.version,
        pid=os.getpid(),
        uptime=Seconds(now - control.started_at),
    )


async def list_models(control: Control, request: web.Request) -> ModelsShape:
    return ModelsShape(models=[control.view(m) for m in control.operations.fleet.catalogue])


async def get_model(control: Control, request: web.Request) -> ModelShape:
    return control.view(_model(control, request))


async def load_model(control: Control, request: web.Request) -> ModelShape:
    model = _model(control, request)
    options = await _flags(request, {"wait": True})
    await control.operations.load(model.id, wait=options["wait"])
    return control.view(model)


async def unload_model(control: Control, request: web.Request) -> UnloadShape:
    model = _model(control, request)
    options = await _flags(request, {"now": False, "wait": True})
    unloaded = await control.operations.unload(model.id, now=options["now"], wait=options["wait"])
    return UnloadShape(unloaded=unloaded, model=control.view(model))


async def reload_configuration(control: Control, request: web.Request) -> ReloadShape:
    return reload_view(await control.reload())


async def get_logs(control: Control, request: web.Request) -> web.StreamResponse:
    model = _model(control, request)
    lines = _whole_number(request, "lines", default=DEFAULT_LINES, most=MAX_LINES)
    if not _whole_number(request, "follow", default=0, most=1):
        return web.Response(body=_text(await control.logs.tail(model.id, lines)), headers=_PLAIN)
    response = web.StreamResponse(headers=_PLAIN)
    with control.following():
        tail = await control.logs.tail(model.id, lines)
        with control.logs.follow(model.id) as printed:  # no await between: no line is lost
            await response.prepare(request)
            await response.write(_text(tail))
            async for line in printed:
                await response.write(_text([line]))
    return response


def _text(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")


def _model(control: Control, request: web.Request) -> Model:
    return control.operations.resolve(request.match_info["id"])


async def _flags(request: web.Request, defaults: Mapping[str, bool]) -> dict[str, bool]:
    """The body's switches over `defaults`; no body at all means the defaults."""
    raw = await request.read()
    if not raw.strip():
        return dict(defaults)
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:  # the latter: brackets nested by the thousand
        raise InvalidJsonError(f"cannot read the body as JSON: {error}") from error
    if not isinstance(body, dict):
        raise InvalidJsonError("cannot use the body: it is not a JSON object")
    for name, value in body.items():
        if name not in defaults:
            allowed = ", ".join(defaults)
            raise RequestError(f"cannot use '{name}'", hint=f"known: {allowed}", param=name)
        if not isinstance(value, bool):
            raise RequestError(f"cannot use '{name}': it is not true or false", param=name)
    return {**defaults, **body}


def _whole_number(request: web.Request, name: str, *, default: int, most: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 9 or int(text) > most:
        raise RequestError(f"cannot use {name}={text!r}: not a number from 0 to {most}", param=name)
    return int(text)
