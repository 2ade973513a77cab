"""Which headers pass, in either direction, and the request's id.

The head for the engine is built from an allow-nothing start: credentials, cookies, forwarding
headers and everything about the connection stay here.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping

from multidict import CIMultiDict, CIMultiDictProxy

#: About one connection, not about the message. Source: RFC 9110 7.6.1, RFC 9112, and old habits.
HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
#: The client's that no engine needs: its identity, and what is said anew for the engine.
_NOT_TO_ENGINE = HOP_BY_HOP | {
    "host",
    "content-length",
    "content-encoding",  # only `identity` is accepted, and that says nothing
    "accept-encoding",
    "expect",
    "authorization",
    "x-api-key",
    "api-key",
    "cookie",
    "origin",
    "referer",
    "x-request-id",
    # Where it came from: servers believe these when the peer is local (uvicorn's proxy headers).
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-real-ip",
}
_NOT_TO_CLIENT = HOP_BY_HOP | {"server", "date", "x-request-id"}

REQUEST_ID = "X-Request-Id"
_REQUEST_ID_FORM = re.compile(r"[A-Za-z0-9._:-]{1,128}")


#: Headers that every answer to one request carries.
Signature = Mapping[str, str]


def signature(headers: Mapping[str, str]) -> Signature:
    """The request's id: the client's own if it is safe in a header and a log line, else new."""
    given = headers.get(REQUEST_ID, "")
    known = given if _REQUEST_ID_FORM.fullmatch(given) else uuid.uuid4().hex
    return {REQUEST_ID: known, "Server": "sparkd"}


def to_engine(headers: CIMultiDictProxy[str], rid: str) -> CIMultiDict[str]:
    """The head for the engine; aiohttp adds `Content-Length` from the body."""
    named = _named_by_connection(headers)
    kept = CIMultiDict[str]()
    for name, value in headers.items():
        if name.lower() not in _NOT_TO_ENGINE and name.lower() not in named:
            kept.add(name, value if value.isascii() else _writable(value))
    kept["Host"] = "localhost"
    kept["Accept-Encoding"] = "identity"
    kept[REQUEST_ID] = rid
    return kept


def _writable(value: str) -> str:
    """Bytes that are no UTF-8 came as lone surrogates, which nobody can write."""
    return value.encode("utf-8", "replace").decode()


def to_client(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """The engine's head as the client may see it."""
    named = _named_by_connection(headers)
    kept = CIMultiDict[str]()
    for name, value in headers.items():
        if name.lower() not in _NOT_TO_CLIENT and name.lower() not in named:
            kept.add(name, value)
    return kept


def _named_by_connection(headers: CIMultiDictProxy[str]) -> frozenset[str]:
    if "Connection" not in headers:
        return frozenset()
    listed = ",".join(headers.getall("Connection"))
    return frozenset(word.strip().lower() for word in listed.split(","))
