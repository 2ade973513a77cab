"""What a request must pass before anything is scheduled: origin, media type, size.

The face has no password on a private machine; these checks keep a web page that runs in the
operator's browser from using it. Source: Fetch standard (a cross-site POST without preflight
cannot be `application/json`), and DNS rebinding (the page's own name in `Host`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from aiohttp import web

from sparkd.errors import (
    BodyTooLargeError,
    PermissionDeniedError,
    RequestError,
    UnsupportedMediaTypeError,
)

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Doorman:
    """Lets in who calls the daemon by a name that is its own."""

    __slots__ = ("_names",)

    def __init__(self, extra_names: Iterable[str] = ()):
        self._names = _LOOPBACK | {name.strip("[]").lower() for name in extra_names}

    def check(self, request: web.Request) -> None:
        """Raises PermissionDeniedError for a foreign Host or Origin."""
        hosts = request.headers.getall("Host", [])
        if len(hosts) > 1:
            raise RequestError("cannot accept the request: it has more than one Host")
        if hosts and not self._ours(f"//{hosts[0]}"):
            raise PermissionDeniedError(
                "cannot serve a request for this Host: it is not a name of this daemon",
                hint="call it as localhost; a proxy in front has to send Host: localhost",
            )
        origin = request.headers.get("Origin")
        if origin is not None and not self._ours(origin):
            raise PermissionDeniedError("cannot serve a page of this Origin: it is not local")

    def _ours(self, url: str) -> bool:
        try:
            name = urlsplit(url).hostname
        except ValueError:
            return False
        return name is not None and (name in self._names or _is_loopback(name))


def _is_loopback(name: str) -> bool:
    """All of 127.0.0.0/8: an address, unlike a name, cannot be made to point elsewhere."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def check_media_type(request: web.Request) -> None:
    """Raises UnsupportedMediaTypeError unless the body is declared to be plain JSON."""
    declared = request.headers.get("Content-Type", "")
    if declared.partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaTypeError(
            f"cannot read a body of type '{declared[:80]}'",
            hint="send Content-Type: application/json",
        )
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding.strip().lower() != "identity":
        raise UnsupportedMediaTypeError(
            f"cannot read a body with Content-Encoding '{encoding[:80]}'", hint="send it plain"
        )


def check_length(request: web.Request, limit: int) -> None:
    """Raises BodyTooLargeError for a body that is declared too long."""
    if (request.content_length or 0) > limit:
        raise _too_large(limit)


async def read_body(request: web.Request, limit: int) -> bytes:
    """The whole body, however it is framed. Raises BodyTooLargeError as soon as it is known."""
    check_length(request, limit)
    pieces: list[bytes] = []
    size = 0
    while piece := await request.content.readany():
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _too_large(limit: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"cannot accept the body: it is larger than {limit} bytes")
