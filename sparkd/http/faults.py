"""Turns everything that can go wrong below or inside a handler into the OpenAI error object.

The one place that replaces aiohttp's own text and HTML errors: those of its router, of its body
reader, and those of its parser, which never reach an application. Public names of aiohttp only,
and the hooks `RequestHandler.handle_error`, `connection_made` and `connection_lost`,
`Server.__call__`, `Server.request_handler`, and `AppRunner._make_server`.
Source: aiohttp 3.9.1 to 3.14.5.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from http import HTTPStatus
from typing import cast

from aiohttp import http_exceptions, web
from aiohttp.typedefs import Handler

from sparkd import errors
from sparkd.http.errors import render

log = logging.getLogger(__name__)

#: How long clients have to take what was written to them when the face closes.
LAST_BYTES_SECONDS = 1.0

#: Newer aiohttp counts for itself, with the same bound; 3.9 takes any number.
MAX_HEADERS = 128


async def answer_errors(request: web.BaseRequest, handler: Handler) -> web.StreamResponse:
    """Calls the handler; what it raises becomes the answer, unless an answer has begun."""
    try:
        if len(request.raw_headers) > MAX_HEADERS:
            raise errors.HeadersTooLargeError("cannot read the request: it has too many headers")
        return await handler(request)  # type: ignore[arg-type]  # a Request once it is resolved
    except errors.SparkdError as error:
        return _answer(request, error)
    except web.HTTPException as error:
        if error.status < HTTPStatus.BAD_REQUEST:
            raise
        return _answer(request, from_http_exception(request, error))
    except web.RequestPayloadError as error:
        return _answer(request, errors.RequestError(f"cannot read the request body: {error}"))
    except ConnectionError:
        raise  # the client has gone: nobody is there to be answered
    except Exception:
        log.exception("unexpected error in %s %s", request.method, request.rel_url.raw_path)
        return _answer(request, errors.SparkdError("cannot serve the request: internal error"))


def from_http_exception(request: web.BaseRequest, error: web.HTTPException) -> errors.SparkdError:
    """What aiohttp's router and body reader say, in our words."""
    match error:
        case web.HTTPNotFound():
            return errors.RouteNotFoundError(f"cannot find a route for {request.path}")
        case web.HTTPMethodNotAllowed():
            return errors.MethodNotAllowedError(
                f"cannot {request.method} {request.path}", allowed=sorted(error.allowed_methods)
            )
        case web.HTTPRequestEntityTooLarge():
            return errors.BodyTooLargeError("cannot accept the body: it is too large")
        case web.HTTPServerError():
            return errors.SparkdError(f"cannot serve the request: {error.reason}")
        case _:
            return errors.RequestError(f"cannot accept the request: {error.reason}")


def from_parser(error: BaseException | None, message: str | None) -> errors.SparkdError:
    """What aiohttp's parser says about bytes that are no request."""
    match error:
        case http_exceptions.LineTooLong():
            return errors.HeadersTooLargeError("cannot read the request: a header is too long")
        case http_exceptions.HttpProcessingError() if "Too many" in error.message:
            return errors.HeadersTooLargeError("cannot read the request: it has too many headers")
        case http_exceptions.HttpProcessingError():
            said = " ".join(error.message.split())[:200]  # it may quote what was sent, with a caret
            return errors.RequestError(f"cannot read the request: {said}")
        case _:
            return errors.SparkdError(f"cannot serve the request: {message or 'internal error'}")


def _answer(request: web.BaseRequest, error: errors.SparkdError) -> web.StreamResponse:
    if request.writer.output_size > 0:
        # A second head inside the first answer would look like a body; a cut is honest.
        raise ConnectionResetError("the answer has begun, its end cannot be told")
    return render(error)


class _OpenConnections:
    """Transports whose end has not been seen. A closed one stays until its bytes are taken."""

    def __init__(self) -> None:
        self._transports: set[asyncio.Transport] = set()
        self._none_left = asyncio.Event()

    def add(self, transport: asyncio.Transport) -> None:
        self._transports.add(transport)

    def discard(self, transport: asyncio.Transport | None) -> None:
        if transport is not None:
            self._transports.discard(transport)
        if not self._transports:
            self._none_left.set()

    async def end(self, within: float) -> None:
        """Returns when none is left; those whose client takes nothing are cut after `within` s."""
        self._none_left.clear()
        if not self._transports:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._none_left.wait()
        for transport in tuple(self._transports):
            transport.abort()
        if self._transports:
            await self._none_left.wait()


class _Connection(web.RequestHandler):
    """One client connection whose protocol errors are OpenAI objects."""

    __slots__ = ("_open", "_own_transport")

    def __init__(self, server: web.Server, open_connections: _OpenConnections, **options: object):
        super().__init__(server, loop=asyncio.get_running_loop(), **options)  # type: ignore[arg-type]
        self._open = open_connections
        self._own_transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes by isinstance.
        self._own_transport = cast(asyncio.Transport, transport)
        self._open.add(self._own_transport)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._open.discard(self._own_transport)
        self._own_transport = None
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Called by aiohttp for bytes that are no request; the connection ends with the answer."""
        if isinstance(exc, ConnectionError):
            raise exc  # the client has gone, or its answer was cut on purpose
        if not isinstance(exc, http_exceptions.HttpProcessingError):
            log.error("unexpected error on a connection: %s", message, exc_info=exc)
        response = _answer(request, from_parser(exc, message))
        response.force_close()
        return response


class _Server(web.Server):
    """Makes connections of ours, and puts `answer_errors` around the whole application."""

    def __init__(self, inner: web.Server, **options: object):
        super().__init__(
            functools.partial(answer_errors, handler=inner.request_handler),
            request_factory=inner.request_factory,
            handler_cancellation=True,
            loop=asyncio.get_running_loop(),
        )
        self._options = options
        self.open_connections = _OpenConnections()

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, self.open_connections, **self._options)


class FaultlessRunner(web.AppRunner):
    """An AppRunner all of whose errors are OpenAI objects."""

    __slots__ = ("_connection_options",)

    def __init__(self, app: web.Application, *, shutdown_timeout: float, **options: object):
        super().__init__(app, shutdown_timeout=shutdown_timeout)
        self._connection_options = options

    async def cleanup(self) -> None:
        """No connection is left afterwards, not even one whose client takes nothing."""
        server = self.server
        await super().cleanup()
        if isinstance(server, _Server):
            await server.open_connections.end(within=LAST_BYTES_SECONDS)

    async def _make_server(self) -> web.Server:
        return _Server(await super()._make_server(), **self._connection_options)
