"""HTTP to engines: one client session per instance's socket.

Nothing here decides whether an instance is alive. No timeout but the connect one: an engine may
think for an hour (aiohttp's default of 300 s in all cut long answers in the stack before sparkd).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass
from types import SimpleNamespace

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from sparkd.core.instance import InstanceId
from sparkd.supervisor.lease import Grant

#: Shorter than the engine's own 5 s (uvicorn's default, vLLM 0.32.0), so that it is mostly this
#: side that closes a connection nobody uses.
POOL_SECONDS = 4.0
CONNECT_SECONDS = 5.0
#: Bodies beyond this are sent in pieces: one write would copy all of it at once.
PIECE_BYTES = 256 * 1024
_MAX_HEADER = 64 * 1024


@dataclass(frozen=True, slots=True)
class Question:
    """One request as the engine gets it."""

    path: str  # encoded, with the query
    headers: CIMultiDict[str]
    body: bytes


class Engines:
    """All sessions; they end with their instances, the rest with `close`."""

    def __init__(self, alive: Callable[[], Collection[InstanceId]]):
        """`alive` says which instances exist; sessions of others are closed."""
        self._alive = alive
        self._links: dict[InstanceId, _Link] = {}

    async def ask(self, grant: Grant, question: Question) -> aiohttp.ClientResponse:
        """The engine's answer once its head is complete; the caller closes it.

        Raises aiohttp.ClientError or OSError. A pooled connection that the engine had just closed
        is no failure: the request goes out again on a new one. One that was made for this request
        and broke may have carried it to an engine that worked on it: nothing goes out twice then.
        """
        link = self._links.get(grant.instance) or await self._open(grant)
        sending = _Sending()
        try:
            return await _post(link.pooled, question, sending)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            if not sending.on_used_connection:
                raise
            return await _post(link.fresh, question, sending)

    async def close(self) -> None:
        while self._links:
            _, link = self._links.popitem()
            await link.close()

    async def _open(self, grant: Grant) -> _Link:
        link = self._links[grant.instance] = _Link.to(grant.upstream.socket_path)
        gone = set(self._links) - set(self._alive()) - {grant.instance}
        for instance in gone:  # one at a time: a cancellation leaves the others to the next
            if (link_of_gone := self._links.pop(instance, None)) is not None:
                await link_of_gone.close()
        return link


@dataclass(slots=True)
class _Sending:
    """What a session tells of one request while it sends it."""

    on_used_connection: bool = False


@dataclass(frozen=True, slots=True)
class _Link:
    pooled: aiohttp.ClientSession
    fresh: aiohttp.ClientSession  # never reuses a connection

    @classmethod
    def to(cls, socket_path: str) -> _Link:
        return cls(_session(socket_path, reuse=True), _session(socket_path, reuse=False))

    async def close(self) -> None:
        try:
            await self.pooled.close()
        finally:
            await self.fresh.close()


async def _note_reuse(
    _: aiohttp.ClientSession, context: SimpleNamespace, __: aiohttp.TraceConnectionReuseconnParams
) -> None:
    context.trace_request_ctx.on_used_connection = True


def _tracing() -> aiohttp.TraceConfig:
    tracing = aiohttp.TraceConfig()
    tracing.on_connection_reuseconn.append(_note_reuse)
    return tracing


def _session(socket_path: str, *, reuse: bool) -> aiohttp.ClientSession:
    connector = (
        aiohttp.UnixConnector(socket_path, limit=0, keepalive_timeout=POOL_SECONDS)
        if reuse
        else aiohttp.UnixConnector(socket_path, limit=0, force_close=True)
    )
    return aiohttp.ClientSession(
        connector=connector,
        trace_configs=[_tracing()] if reuse else None,
        timeout=aiohttp.ClientTimeout(
            total=None, connect=None, sock_connect=CONNECT_SECONDS, sock_read=None
        ),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Content-Type"),
        max_line_size=_MAX_HEADER,
        max_field_size=_MAX_HEADER,
    )


async def _post(
    session: aiohttp.ClientSession, question: Question, sending: _Sending
) -> aiohttp.ClientResponse:
    body = question.body
    headers = question.headers.copy()
    headers["Content-Length"] = str(len(body))  # also for pieces: engines get no chunked bodies
    return await session.post(
        URL("http://localhost" + question.path, encoded=True),
        data=body if len(body) <= PIECE_BYTES else _pieces(body),
        headers=headers,
        allow_redirects=False,
        trace_request_ctx=sending,
    )


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), PIECE_BYTES):
        yield body[at : at + PIECE_BYTES]
