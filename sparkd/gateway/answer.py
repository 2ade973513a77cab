"""The one answer that a client gets: begun, written, and ended so that its end tells the truth.

A stream that went wrong ends with an error event and a broken connection: without the last chunk
of the framing, no client can take it for complete.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

from aiohttp import HttpVersion11, web
from multidict import CIMultiDict

from sparkd.core.catalogue import ModelId
from sparkd.errors import SparkdError
from sparkd.gateway import sse
from sparkd.gateway.headers import Signature
from sparkd.http.errors import error_json

#: How long a client has to take the error event from us before it only sees the break.
TELL_SECONDS = 2.0
_NO_LINGER = struct.pack("ii", 1, 0)


class Answer:
    """One client's side of an exchange."""

    def __init__(self, request: web.Request, model: ModelId, signature: Signature):
        self._request = request
        self._response: web.StreamResponse | None = None
        self._tail: sse.Tail | None = None  # set when the body is an event stream
        self.headers = CIMultiDict[str](signature)
        self.headers["X-Sparkd-Model"] = model
        self._ended = False  # the end was written; it may still be on its way
        self.holds_engine_bytes = False  # from then on the request cannot be asked again

    @property
    def begun(self) -> bool:
        """Something was sent, if only a comment: status and head are fixed."""
        return self._response is not None

    async def comment(self, text: bytes) -> None:
        """Keeps a waiting stream alive. The first one begins the answer, as an event stream."""
        if not self.begun:
            head = CIMultiDict({"Content-Type": f"{sse.MEDIA_TYPE}; charset=utf-8"})
            head["Cache-Control"] = "no-cache"
            await self.begin(200, head)
        await self._write(text)

    async def begin(self, status: int, headers: CIMultiDict[str]) -> None:
        """Sends the head, unless comments have been sent under one of ours."""
        if self.begun:
            return
        headers.extend(self.headers)
        if headers.get("Content-Type", "").startswith(sse.MEDIA_TYPE):
            self._tail = sse.Tail()
        response = web.StreamResponse(status=status, headers=headers)
        if response.content_length is None and self._request.version >= HttpVersion11:
            response.enable_chunked_encoding()
        self._response = response
        await response.prepare(self._request)

    async def pass_on(self, chunk: bytes) -> None:
        """Bytes of the engine, unchanged."""
        self.holds_engine_bytes = True
        await self._write(chunk)

    async def finish(self) -> web.StreamResponse:
        assert self._response is not None
        self._ended = True
        await self._response.write_eof()
        return self._response

    def whole(self, status: int, headers: CIMultiDict[str], body: bytes) -> web.Response:
        """An answer that is already complete, and nothing has been sent yet."""
        headers.extend(self.headers)
        headers.popall("Content-Length", None)
        return web.Response(status=status, headers=headers, body=body)

    async def break_off(self, error: SparkdError | bytes) -> web.StreamResponse:
        """Tells an event stream what happened, as its last event, and breaks the connection."""
        assert self._response is not None
        data = error_json(error) if isinstance(error, SparkdError) else error
        if self._tail is not None and not self._ended:  # after the end, bytes are another answer
            with contextlib.suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(TELL_SECONDS):
                    await self._response.write(self._tail.closing() + sse.event(data))
        self._cut(self._response)
        return self._response

    async def _write(self, chunk: bytes) -> None:
        assert self._response is not None
        if self._tail is not None:
            self._tail.saw(chunk)
        await self._response.write(chunk)

    def _cut(self, response: web.StreamResponse) -> None:
        transport = self._request.transport
        if transport is None:
            return
        if self._tail is None and not response.chunked and response.content_length is None:
            # Only a reset tells a body without framing from a complete one.
            if (sock := transport.get_extra_info("socket")) is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            transport.abort()
            return
        transport.close()
        # Closing waits for what is still to be sent; a client that reads nothing must not hold it.
        asyncio.get_running_loop().call_later(TELL_SECONDS, transport.abort)
