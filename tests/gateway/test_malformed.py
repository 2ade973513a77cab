"""Requests that are wrong, as bytes: each gets the right status and nothing is scheduled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from tests.gateway.kit import Rig, error_of

JSON = b"Content-Type: application/json\r\n"
HOST = b"Host: localhost\r\n"
CHAT = b"/v1/chat/completions"


def post(
    body: bytes, path: bytes = CHAT, headers: bytes = HOST + JSON, method: bytes = b"POST"
) -> bytes:
    return (
        method
        + b" "
        + path
        + b" HTTP/1.1\r\n"
        + headers
        + b"Content-Length: %d\r\n\r\n" % len(body)
        + body
    )


def head(line: bytes, headers: bytes = HOST + JSON) -> bytes:
    return line + b"\r\n" + headers + b"\r\n"


TINY = b'{"model":"tiny"}'
CHUNKED = HOST + JSON + b"Transfer-Encoding: chunked\r\n"
LINE = b"POST " + CHAT + b" HTTP/1.1"


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    data: bytes
    status: int
    code: str


CASES = [
    # the body
    Case("no body", post(b""), 400, "invalid_json"),
    Case("broken JSON", post(b'{"model": "tiny"'), 400, "invalid_json"),
    Case("trailing garbage", post(TINY + b"x"), 400, "invalid_json"),
    Case("broken UTF-8", post(b'{"model":"t\xc3("}'), 400, "invalid_json"),
    Case("UTF-16", post(TINY.decode().encode("utf-16")), 400, "invalid_json"),
    Case("byte order mark", post(b"\xef\xbb\xbf" + TINY), 400, "invalid_json"),
    Case("an array", post(b'["tiny"]'), 400, "invalid_json"),
    Case("a string", post(b'"tiny"'), 400, "invalid_json"),
    Case("null", post(b"null"), 400, "invalid_json"),
    Case("100,000 brackets", post(b"[" * 100_000), 400, "invalid_json"),
    Case("a 5,000 digit number", post(b'{"n":' + b"9" * 5000 + b"}"), 400, "invalid_json"),
    Case("no model", post(b'{"messages":[]}'), 400, "missing_model"),
    Case("null model", post(b'{"model":null}'), 400, "missing_model"),
    Case("empty model", post(b'{"model":""}'), 400, "missing_model"),
    Case("a number as model", post(b'{"model":7}'), 400, "invalid_request"),
    Case("an object as model", post(b'{"model":{"id":"tiny"}}'), 400, "invalid_request"),
    Case("a word as stream", post(b'{"model":"tiny","stream":"yes"}'), 400, "invalid_request"),
    # names
    Case("unknown model", post(b'{"model":"nope"}'), 404, "model_not_found"),
    Case("a prototype's name", post(b'{"model":"constructor"}'), 404, "model_not_found"),
    Case("a dunder name", post(b'{"model":"__class__"}'), 404, "model_not_found"),
    Case("a lone surrogate", post(b'{"model":"\\ud800"}'), 404, "model_not_found"),
    Case("a NUL in the model", post(b'{"model":"tiny\\u0000"}'), 404, "model_not_found"),
    Case("unknown path model", post(b"{}", b"/v1/nope/chat/completions"), 404, "model_not_found"),
    Case("a NUL in the path", post(b"{}", b"/v1/a%00b/completions"), 404, "model_not_found"),
    Case("traversal as model", post(b"{}", b"/v1/../completions"), 404, "model_not_found"),
    Case("encoded traversal", post(b"{}", b"/v1/%2e%2e%2f/completions"), 404, "model_not_found"),
    Case("path no UTF-8", post(b"{}", b"/v1/%ff/completions"), 400, "invalid_request"),
    Case(
        "two models that disagree",
        post(b'{"model":"other"}', b"/v1/tiny/completions"),
        400,
        "invalid_request",
    ),
    Case(
        "a body model that nobody knows",
        post(b'{"model":"x"}', b"/v1/tiny/completions"),
        404,
        "model_not_found",
    ),
    Case("chat with an embedder", post(b'{"model":"emb"}'), 404, "task_not_supported"),
    Case("embedding by a chat model", post(TINY, b"/v1/embeddings"), 404, "task_not_supported"),
    # routes and methods
    Case("unknown route", post(TINY, b"/v1/chat/complete"), 404, "route_not_found"),
    Case("traversal", post(TINY, b"/v1/../../etc/passwd"), 404, "route_not_found"),
    Case("the root", head(b"GET / HTTP/1.1"), 404, "route_not_found"),
    Case("asterisk", head(b"OPTIONS * HTTP/1.1"), 404, "route_not_found"),
    Case("wrong method", head(b"GET " + CHAT + b" HTTP/1.1"), 405, "method_not_allowed"),
    Case("delete a model", head(b"DELETE /v1/models/tiny HTTP/1.1"), 405, "method_not_allowed"),
    Case("unknown method", post(TINY, method=b"BREW"), 400, "invalid_request"),
    # heads
    Case("no content type", post(TINY, headers=HOST), 415, "unsupported_media_type"),
    Case(
        "a form",
        post(TINY, headers=HOST + b"Content-Type: text/plain\r\n"),
        415,
        "unsupported_media_type",
    ),
    Case(
        "a packed body",
        post(TINY, headers=HOST + JSON + b"Content-Encoding: gzip\r\n"),
        415,
        "unsupported_media_type",
    ),
    Case(
        "foreign host", post(TINY, headers=b"Host: evil.test\r\n" + JSON), 403, "permission_denied"
    ),
    Case("odd host", post(TINY, headers=b"Host: [::1\r\n" + JSON), 403, "permission_denied"),
    Case(
        "foreign origin",
        post(TINY, headers=HOST + JSON + b"Origin: https://evil.test\r\n"),
        403,
        "permission_denied",
    ),
    Case(
        "opaque origin",
        post(TINY, headers=HOST + JSON + b"Origin: null\r\n"),
        403,
        "permission_denied",
    ),
    Case("two hosts", post(TINY, headers=HOST + HOST + JSON), 400, "invalid_request"),
    Case(
        "a huge header",
        post(TINY, headers=HOST + JSON + b"X-Big: " + b"a" * 100_000 + b"\r\n"),
        431,
        "headers_too_large",
    ),
    Case(
        "a huge request line",
        post(TINY, path=CHAT + b"?" + b"a" * 100_000),
        431,
        "headers_too_large",
    ),
    Case(
        "1,000 headers",
        post(TINY, headers=HOST + JSON + b"".join(b"X-%d: 1\r\n" % n for n in range(1000))),
        431,
        "headers_too_large",
    ),
    Case(
        "unknown expectation",
        post(TINY, headers=HOST + JSON + b"Expect: magic\r\n"),
        400,
        "invalid_request",
    ),
    # framing
    Case("garbage", b"\x00\x01\x02\x03\r\n\r\n", 400, "invalid_request"),
    Case("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "invalid_request"),
    Case("another protocol", head(b"POST /v1/chat/completions FTP/1.1"), 400, "invalid_request"),
    Case("a raw NUL in the path", post(TINY, b"/v1/\x00"), 400, "invalid_request"),
    Case("a header without colon", head(LINE, HOST + b"nonsense\r\n"), 400, "invalid_request"),
    Case(
        "negative length",
        head(LINE, HOST + JSON + b"Content-Length: -1\r\n"),
        400,
        "invalid_request",
    ),
    Case(
        "a word as length",
        head(LINE, HOST + JSON + b"Content-Length: x\r\n"),
        400,
        "invalid_request",
    ),
    Case(
        "absurd length",
        head(LINE, HOST + JSON + b"Content-Length: " + b"9" * 40 + b"\r\n"),
        400,
        "invalid_request",
    ),
    Case(
        "a declared terabyte",
        head(LINE, HOST + JSON + b"Content-Length: 1099511627776\r\n"),
        413,
        "request_too_large",
    ),
    Case(
        "a terabyte that waits for its 100",
        head(LINE, HOST + JSON + b"Expect: 100-continue\r\nContent-Length: 1099511627776\r\n"),
        413,
        "request_too_large",
    ),
    Case(
        "two lengths",
        head(LINE, HOST + JSON + b"Content-Length: 2\r\nContent-Length: 3\r\n") + b"{}",
        400,
        "invalid_request",
    ),
    Case(
        "length and chunks",
        head(LINE, CHUNKED + b"Content-Length: 2\r\n") + b"2\r\n{}\r\n0\r\n\r\n",
        400,
        "invalid_request",
    ),
    Case("bad chunk size", head(LINE, CHUNKED) + b"zz\r\n{}\r\n0\r\n\r\n", 400, "invalid_request"),
    Case("bad chunk end", head(LINE, CHUNKED) + b"2\r\n{}xx0\r\n\r\n", 400, "invalid_request"),
    Case(
        "unknown transfer coding",
        head(LINE, HOST + JSON + b"Transfer-Encoding: gzip\r\n") + b"x",
        400,
        "invalid_request",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_malformed_request_gets_its_status_and_the_openai_object(rig: Rig, case: Case):
    async with asyncio.timeout(10):
        status, headers, body = await rig.raw(case.data)
    inner = error_of(body)
    assert (status, inner["code"]) == (case.status, case.code), inner["message"]
    assert headers["content-type"].startswith("application/json")
    assert rig.supervisor.leases == []
    assert rig.upstream.exchanges == []
    status, _, _ = await rig.raw(post(TINY))  # and the gateway serves on
    assert status == 200


def test_there_are_at_least_forty():
    assert len({case.name for case in CASES}) >= 40


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_of_65_mib_is_too_large_however_it_is_framed(rig: Rig, chunked: bool):
    mebibyte = b"x" * 1024 * 1024

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(65):
            yield mebibyte

    headers = {"Content-Type": "application/json"}
    if not chunked:
        headers["Content-Length"] = str(65 * len(mebibyte))
    async with rig.client.post(
        rig.url("/v1/chat/completions"), data=pieces(), headers=headers
    ) as response:
        assert response.status == 413
        assert error_of(await response.read())["code"] == "request_too_large"
    assert rig.supervisor.leases == []


async def test_a_wrong_method_is_told_the_right_one(rig: Rig):
    _, headers, _ = await rig.raw(head(b"GET " + CHAT + b" HTTP/1.1"))
    assert headers["allow"] == "POST"


async def test_a_client_that_asks_before_it_sends_is_told_to_go_on(rig: Rig):
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(head(LINE, HOST + JSON + b"Expect: 100-continue\r\nContent-Length: 16\r\n"))
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(TINY)
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()
    await writer.wait_closed()
