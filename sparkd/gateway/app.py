"""The gateway as an aiohttp application: a request is matched, checked, and answered or forwarded.

What nobody foresaw becomes an OpenAI object in `sparkd.http.faults`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import assert_never

from aiohttp import web

from sparkd.errors import MissingModelError, ModelNotFoundError, RequestError, SparkdError
from sparkd.gateway import headers, openai
from sparkd.gateway.checks import Doorman, check_length, check_media_type, read_body
from sparkd.gateway.engines import Engines, Question
from sparkd.gateway.forward import Call, Forward
from sparkd.gateway.headers import Signature
from sparkd.gateway.peek import QUICK_BYTES, Peek, peek
from sparkd.gateway.ports import Supervisor
from sparkd.gateway.routes import Healthz, Infer, ListModels, ShowModel, match
from sparkd.http.errors import render

MAX_BODY = 64 * 1024 * 1024
#: Longer ones are of no model; `peek` forgets such strings of big bodies too.
_LONGEST_NAME = 512


def make_gateway(
    supervisor: Supervisor,
    *,
    started_utc: float,
    max_body: int = MAX_BODY,
    comment_interval: float = 10.0,
    allowed_hosts: Iterable[str] = (),
) -> web.Application:
    """`started_utc`: seconds since the epoch, the models' `created`. Cleanup closes all sessions.

    `comment_interval`: seconds until a waiting stream gets a comment, and between two of them.
    """
    engines = Engines(lambda: supervisor.fleet.instances)
    gateway = _Gateway(
        supervisor,
        Forward(supervisor, engines, comment_interval),
        doorman=Doorman(allowed_hosts),
        max_body=max_body,
        created=int(started_utc),
    )

    async def close(_: web.Application) -> None:
        await engines.close()

    app = web.Application(client_max_size=max_body)
    app.router.add_route("*", "/{path:.*}", gateway.handle, expect_handler=gateway.expect)
    app.on_cleanup.append(close)
    return app


class _Gateway:
    def __init__(
        self,
        supervisor: Supervisor,
        forward: Forward,
        *,
        doorman: Doorman,
        max_body: int,
        created: int,
    ):
        self._supervisor = supervisor
        self._forward = forward
        self._doorman = doorman
        self._max_body = max_body
        self._created = created

    async def handle(self, request: web.Request) -> web.StreamResponse:
        signature = headers.signature(request.headers)
        try:
            response = await self._answer(request, signature)
        except SparkdError as error:
            response = render(error)
        if not response.prepared:
            response.headers.update(signature)
        return response

    async def _answer(self, request: web.Request, signature: Signature) -> web.StreamResponse:
        self._doorman.check(request)
        match match(request.method, request.rel_url.raw_path):
            case Healthz():
                return web.Response(text="ok")
            case ListModels():
                return web.json_response(
                    openai.model_list(self._supervisor.fleet, self._supervisor.now(), self._created)
                )
            case ShowModel(name):
                return self._show(name)
            case Infer() as target:
                return await self._serve(request, target, signature)
            case unknown:
                assert_never(unknown)

    async def expect(self, request: web.Request) -> None:
        """Refuses a body that nobody wants before the client sends it."""
        if request.headers.get("Expect", "").lower() != "100-continue":
            raise RequestError("cannot meet the request's expectation")
        check_length(request, self._max_body)
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # an interim answer is not the beginning of the answer

    def _show(self, name: str) -> web.Response:
        model = self._supervisor.resolve(name)
        entry = openai.model_entry(
            model, self._supervisor.fleet, self._supervisor.now(), self._created
        )
        return web.json_response(entry)

    async def _serve(
        self, request: web.Request, target: Infer, signature: Signature
    ) -> web.StreamResponse:
        call = await self._call(request, target, signature)
        return await self._forward.serve(request, call, signature)

    async def _call(self, request: web.Request, target: Infer, signature: Signature) -> Call:
        """Everything that can be refused is refused here, before anything is scheduled."""
        check_media_type(request)
        body = await read_body(request, self._max_body)
        found = peek(body) if len(body) <= QUICK_BYTES else await asyncio.to_thread(peek, body)
        model = self._supervisor.resolve(_model_name(target, found))
        if target.model is not None and found.model is not None:
            self._check_agreement(model.id, found.model)
        openai.check_task(model, target.endpoint)
        query = request.rel_url.raw_query_string
        if not query.isascii():  # aiohttp's C parser refuses it, its Python one does not
            raise RequestError("cannot read the query: it is not percent-encoded")
        question = Question(
            path=f"/v1/{target.endpoint.path}" + (f"?{query}" if query else ""),
            headers=headers.to_engine(request.headers, signature[headers.REQUEST_ID]),
            body=body,
        )
        return Call(model=model, endpoint=target.endpoint, stream=found.stream, question=question)

    def _check_agreement(self, in_path: str, in_body: str) -> None:
        if self._supervisor.resolve(in_body).id != in_path:
            raise RequestError(
                f"cannot tell which model is meant: the path says '{in_path}', "
                f"the body says '{in_body}'",
                param="model",
            )


def _model_name(target: Infer, found: Peek) -> str:
    name = target.model or found.model
    if name is None:
        raise MissingModelError(
            "cannot tell which model is meant: the body has no 'model'",
            hint="GET /v1/models lists them",
        )
    if len(name) > _LONGEST_NAME:  # to look for a similar one would hold the loop for 50 ms
        raise ModelNotFoundError(
            f"cannot find a model whose name has {len(name)} characters",
            hint="GET /v1/models lists the models",
        )
    return name
