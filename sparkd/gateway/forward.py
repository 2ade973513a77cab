"""One request, from the wish for a lease to the last byte: wait, ask, pass on, retry once.

The order of things decides what a client sees when an engine dies. Until the engine's first body
byte has arrived nothing of it was sent, and the request can be asked again; after that it cannot.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from dataclasses import dataclass
from typing import NoReturn

import aiohttp
from aiohttp import web

from sparkd.core.catalogue import Model
from sparkd.core.instance import Reason
from sparkd.errors import (
    HostError,
    ModelUnloadedError,
    ShuttingDownError,
    SparkdError,
    UpstreamLostError,
)
from sparkd.gateway import openai, sse
from sparkd.gateway.answer import Answer
from sparkd.gateway.engines import Engines, Question
from sparkd.gateway.headers import Signature, to_client
from sparkd.gateway.ports import Lease, Supervisor
from sparkd.gateway.routes import Endpoint
from sparkd.supervisor.lease import Grant

log = logging.getLogger(__name__)

#: How long a failed exchange waits for the supervisor to learn of the death that explains it.
LOST_WITHIN = 2.0
#: Error answers up to this are read whole: they may say that the engine is dead.
_SMALL_ANSWER = 64 * 1024
#: What this machine has no more of; EAGAIN: as many wait at the engine's socket as may.
_OUT_OF = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN})
_EVENT_WITH_ERROR = b'data: {"error"'


class EngineGone(Exception):  # noqa: N818  # a turn of events, caught in this module only
    """The engine was lost before its first byte: the request may be asked of another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request that passed every check."""

    model: Model
    endpoint: Endpoint
    stream: bool
    question: Question


class Forward:
    """Serves calls."""

    def __init__(self, supervisor: Supervisor, engines: Engines, comment_interval: float):
        self._supervisor = supervisor
        self._engines = engines
        self._comment_interval = comment_interval

    async def serve(
        self, request: web.Request, call: Call, signature: Signature
    ) -> web.StreamResponse:
        """Raises SparkdError only while nothing has been sent."""
        answer = Answer(request, call.model.id, signature)
        try:
            return await self._serve(call, answer)
        except SparkdError as error:
            if not answer.begun:
                raise
            return await answer.break_off(error)

    async def _serve(self, call: Call, answer: Answer) -> web.StreamResponse:
        try:
            return await self._attempt(call, answer)
        except EngineGone as gone:
            log.info("asking again: %s", gone)
        try:
            return await self._attempt(call, answer)
        except EngineGone as gone:
            raise UpstreamLostError(
                f"cannot get an answer from '{call.model.id}': {gone}"
            ) from gone

    async def _attempt(self, call: Call, answer: Answer) -> web.StreamResponse:
        async with self._supervisor.lease(call.model.id) as lease:
            scissors = _Scissors()
            lease.on_revoke(scissors.cut)
            grant = await self._granted(lease, call, answer)
            answer.headers["X-Sparkd-Instance"] = grant.instance
            answer.headers["X-Sparkd-Queue-Wait"] = f"{lease.waited:.3f}"
            try:
                async with scissors.open():
                    return await self._exchange(lease, grant, call, answer)
            except (TimeoutError, EngineGone):
                # A stop that came while a failure was looked into is what the client is told of:
                # asking again would start what an operator has just unloaded.
                if scissors.reason is None:
                    raise
                _revoked(scissors.reason, call.model, answer)
            finally:
                scissors.close()

    async def _granted(self, lease: Lease, call: Call, answer: Answer) -> Grant:
        every = self._comment_interval if call.stream else None
        while (grant := await lease.granted(every)) is None:
            await answer.comment(sse.comment(call.model.id, lease.progress()))
        return grant

    async def _exchange(
        self, lease: Lease, grant: Grant, call: Call, answer: Answer
    ) -> web.StreamResponse:
        try:
            response = await self._engines.ask(grant, call.question)
        except (aiohttp.ClientError, OSError) as error:
            await _judge(lease, call.model, error)
        try:
            if response.status >= 400 and (response.content_length or 0) <= _SMALL_ANSWER:
                return await _pass_error(lease, response, call, answer)
            return await _pass_answer(lease, response, call, answer)
        finally:
            response.close()  # whole ones went back to the pool; the rest stop the generation


async def _pass_answer(
    lease: Lease, response: aiohttp.ClientResponse, call: Call, answer: Answer
) -> web.StreamResponse:
    try:
        chunk = await response.content.readany()
    except (aiohttp.ClientError, OSError) as error:
        await _judge(lease, call.model, error)
    if chunk.startswith(_EVENT_WITH_ERROR):
        await _retry_if_dead(lease, chunk)
    if answer.begun and not _is_event_stream(response):
        raise UpstreamLostError(f"cannot stream from '{call.model.id}': it answered with no stream")
    if not answer.begun and (not chunk or response.content_length == len(chunk)):
        # Complete already: one write less, and no framing where a status allows none.
        return answer.whole(response.status, to_client(response.headers), chunk)
    await answer.begin(response.status, to_client(response.headers))
    while chunk:
        await answer.pass_on(chunk)
        try:
            chunk = await response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamLostError(
                f"cannot complete the answer: the engine of '{call.model.id}' went away"
            ) from error
    return await answer.finish()


async def _pass_error(
    lease: Lease, response: aiohttp.ClientResponse, call: Call, answer: Answer
) -> web.StreamResponse:
    try:
        body = await response.content.read()
    except (aiohttp.ClientError, OSError) as error:
        await _judge(lease, call.model, error)
    if response.status >= 500:
        await _retry_if_dead(lease, body)
    if ours := openai.from_engine(response.status, body, call.model, call.endpoint):
        raise ours
    if answer.begun:
        return await answer.break_off(body)
    return answer.whole(response.status, to_client(response.headers), body)


async def _judge(lease: Lease, model: Model, error: Exception) -> NoReturn:
    """A failed exchange: an engine's death, to be asked again, or a living one's fault, or ours."""
    what = _words_for(error)
    if isinstance(error, OSError) and error.errno in _OUT_OF:
        raise HostError(
            f"cannot reach the engine of '{model.id}': {what}",
            hint="too many requests at once, or the limit of open files is low",
            retry_after=1.0,
        ) from error
    if await lease.lost(LOST_WITHIN):
        raise EngineGone(f"the engine of '{model.id}' died ({what})") from error
    raise UpstreamLostError(f"cannot get an answer from '{model.id}': {what}") from error


def _words_for(error: Exception) -> str:
    """Without the socket's path, which is no client's business."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.strerror or type(error.os_error).__name__
    return str(error) or type(error).__name__


async def _retry_if_dead(lease: Lease, said: bytes) -> None:
    if openai.says_engine_is_dead(said) and await lease.lost(LOST_WITHIN):
        raise EngineGone("the engine said that it is dead")


def _is_event_stream(response: aiohttp.ClientResponse) -> bool:
    return response.headers.get("Content-Type", "").startswith(sse.MEDIA_TYPE)


def _revoked(reason: Reason, model: Model, answer: Answer) -> NoReturn:
    """The instance is being stopped under this call."""
    match reason:
        case Reason.SHUTDOWN:
            raise ShuttingDownError("cannot complete the answer: sparkd is stopping")
        case Reason.UNLOADED:
            raise ModelUnloadedError(f"cannot complete the answer: '{model.id}' was unloaded")
        case _ if not answer.holds_engine_bytes:
            raise EngineGone(f"the instance of '{model.id}' was stopped ({reason})")
        case Reason.FAILED:
            raise UpstreamLostError(f"cannot complete the answer: '{model.id}' died")
        case _:
            raise ModelUnloadedError(
                f"cannot complete the answer: '{model.id}' was stopped ({reason})"
            )


class _Scissors:
    """Lets a callback end a block of code: a deadline that is never, until it is now."""

    def __init__(self) -> None:
        self.reason: Reason | None = None
        self._blades: asyncio.Timeout | None = None

    def open(self) -> asyncio.Timeout:
        """The block that `cut` ends with a TimeoutError; at once if `cut` came before."""
        self._blades = asyncio.timeout(None if self.reason is None else 0)
        return self._blades

    def cut(self, reason: Reason) -> None:
        self.reason = reason
        if self._blades is not None:
            self._blades.reschedule(asyncio.get_running_loop().time())

    def close(self) -> None:
        """The block is over; a later cut has nothing to end."""
        self._blades = None
