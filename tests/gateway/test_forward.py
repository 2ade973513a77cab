"""Bytes, heads and connections between a client and an engine."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import AsyncIterator

import pytest

from sparkd.gateway.ports import Supervisor
from sparkd.supervisor import owner
from tests.gateway.kit import Rig, error_of
from tests.scripted_upstream import Exchange

_SATISFIED: type[Supervisor] = owner.Supervisor  # mypy checks it: the real one fits the port


async def test_a_warm_request_gets_the_engines_answer_under_its_own_head(rig: Rig):
    async def script(x: Exchange) -> None:
        await x.read_body()
        await x.answer(b'{"id":"chatcmpl-1"}')

    rig.upstream.script = script
    async with rig.chat() as response:
        assert response.status == 200
        assert await response.read() == b'{"id":"chatcmpl-1"}'
        assert response.headers["X-Sparkd-Model"] == "tiny"
        assert response.headers["X-Sparkd-Instance"] == "i-1"
        assert response.headers["X-Sparkd-Queue-Wait"] == "0.000"
        assert response.headers["Content-Length"] == "19"
        assert "uvicorn" not in response.headers.get("Server", "")
    assert rig.supervisor.leases[0].left.is_set()


ODD_BODIES = {
    "spelling": b'{ "model" : "tiny",\n "seed": 12345678901234567890123, "x": 1.0e0, "x": 2 }',
    "utf8": json.dumps(
        {"model": "tiny", "messages": "日本語😀é" * 5000}, ensure_ascii=False
    ).encode(),
    "10MB": b'{"model":"tiny","image":"' + b"QUJD" * 2_500_000 + b'"}',
}


@pytest.mark.parametrize("kind", ODD_BODIES)
@pytest.mark.parametrize("chunked", [False, True])
async def test_bodies_pass_byte_for_byte_in_both_directions(rig: Rig, kind: str, chunked: bool):
    body = ODD_BODIES[kind]

    async def pieces() -> AsyncIterator[bytes]:
        # 1021 is prime: multi-byte characters are split in every possible place
        step = 1021 if len(body) < 1_000_000 else 65521
        for at in range(0, len(body), step):
            yield body[at : at + step]

    async with rig.client.post(
        rig.url("/v1/chat/completions"),
        data=pieces(),
        headers={"Content-Type": "application/json"}
        | ({} if chunked else {"Content-Length": str(len(body))}),
    ) as response:
        got = await response.read()
    assert response.status == 200
    assert hashlib.sha256(got).digest() == hashlib.sha256(body).digest()
    assert rig.upstream.last.headers["content-length"] == str(len(body))
    assert "transfer-encoding" not in rig.upstream.last.headers


async def test_the_engine_sees_neither_credentials_nor_anything_about_the_clients_connection(
    rig: Rig,
):
    sent = {
        "Authorization": "Bearer secret",
        "X-Api-Key": "secret",
        "Cookie": "session=secret",
        "Connection": "keep-alive, X-Hop",
        "X-Hop": "secret",
        "TE": "trailers",
        "Accept-Encoding": "gzip, br",
        "Origin": "http://localhost:3000",
        "X-Request-Id": "rid-42",
        "X-Custom": "kept",
        "User-Agent": "client/1",
    }
    async with rig.client.post(
        rig.url("/v1/chat/completions"), json={"model": "tiny"}, headers=sent
    ) as response:
        assert response.headers["X-Request-Id"] == "rid-42"
    got = rig.upstream.last.headers
    assert "secret" not in str(got)
    assert got["accept-encoding"] == "identity"
    assert got["host"] == "localhost"
    assert (got["x-request-id"], got["x-custom"], got["user-agent"]) == (
        "rid-42",
        "kept",
        "client/1",
    )
    assert not {"te", "origin", "cookie"} & set(got)


@pytest.mark.parametrize("given", [None, "bad id", "x" * 129, 'a"b'])
async def test_a_missing_or_unsafe_request_id_is_replaced(rig: Rig, given: str | None):
    headers = {} if given is None else {"X-Request-Id": given}
    async with rig.client.post(
        rig.url("/v1/chat/completions"), json={"model": "tiny"}, headers=headers
    ) as response:
        made = response.headers["X-Request-Id"]
    assert len(made) == 32
    assert rig.upstream.last.headers["x-request-id"] == made


async def test_errors_carry_a_request_id_too(rig: Rig):
    async with rig.chat(model="nope") as response:
        assert response.status == 404
        assert response.headers["X-Request-Id"]


async def test_the_engines_hop_by_hop_headers_stay_behind_and_its_own_pass(rig: Rig):
    async def script(x: Exchange) -> None:
        await x.read_body()
        await x.send(
            b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n"
            b"Server: uvicorn\r\nX-Engine: kept\r\nContent-Encoding: gzip\r\n"
            b"Content-Length: %d\r\n\r\n" % len(packed) + packed
        )

    packed = gzip.compress(b"hello")
    rig.upstream.script = script
    async with rig.chat() as response:
        assert await response.text() == "hello"  # the client unpacks what the gateway did not
        assert response.headers["X-Engine"] == "kept"
        assert not {"X-Hop", "Keep-Alive"} & set(response.headers)


@pytest.mark.parametrize("size", [1, 3, 7, 1000, 300_000])
async def test_a_stream_passes_unchanged_however_it_is_cut(rig: Rig, size: int):
    events = "".join(f'data: {{"t":"日本{n}😀"}}\n\n' for n in range(20 if size < 10 else 3000))
    whole = events.encode() + b"data: [DONE]\n\n"

    async def script(x: Exchange) -> None:
        await x.read_body()
        await x.begin_stream()
        for at in range(0, len(whole), size):
            await x.chunk(whole[at : at + size])
        await x.end_stream()

    rig.upstream.script = script
    async with rig.chat(stream=True) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert await response.read() == whole


async def test_a_head_that_dribbles_in_byte_by_byte_is_still_a_head(rig: Rig):
    async def script(x: Exchange) -> None:
        await x.read_body()
        for (
            byte
        ) in b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok":
            await x.send(bytes([byte]))

    rig.upstream.script = script
    async with rig.chat() as response:
        assert (response.status, await response.read()) == (200, b"ok")


@pytest.mark.parametrize("stays", [True, False])
async def test_an_engine_that_answers_before_it_read_the_body_is_heard(rig: Rig, stays: bool):
    refusal = b'{"error":{"message":"no","type":"t","param":null,"code":400}}'

    async def script(x: Exchange) -> None:
        await x.answer(refusal, "400 Bad Request")
        if stays:
            await x.until_client_leaves()
        x.close()

    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b'{"model":"tiny","x":"', *[b"a" * 65536] * 60, b'"}'):
            yield piece

    rig.upstream.script = script
    async with rig.client.post(
        rig.url("/v1/chat/completions"),
        data=pieces(),
        headers={"Content-Type": "application/json"},
    ) as response:
        body = await response.read()
    if stays:
        assert (response.status, body) == (400, refusal)
    else:  # the reset of the half-sent body may overtake the answer
        assert response.status in (400, 502)
        error_of(body)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        ("400 Bad Request", b'{"error":{"message":"1 validation error:\\n","type":"Bad Request"}}'),
        ("503 Service Unavailable", b'{"error":{"message":"The engine is currently busy"}}'),
        ("500 Internal Server Error", b'{"error":{"message":"something else"}}'),
    ],
)
async def test_the_engines_own_errors_pass_unchanged(rig: Rig, status: str, body: bytes):
    async def script(x: Exchange) -> None:
        await x.read_body()
        await x.answer(body, status)

    rig.upstream.script = script
    async with rig.chat() as response:
        assert response.status == int(status.split(maxsplit=1)[0])
        assert await response.read() == body
    assert len(rig.supervisor.leases) == 1
    assert rig.supervisor.questions == 0, "an engine that only refuses is not taken for dead"


@pytest.mark.parametrize(
    ("status", "code"),
    [("404 Not Found", "task_not_supported"), ("405 Not Allowed", "method_not_allowed")],
)
async def test_fastapis_own_error_shape_becomes_the_openai_object(rig: Rig, status: str, code: str):
    async def script(x: Exchange) -> None:
        await x.read_body()
        await x.answer(b'{"detail":"whatever"}', status)

    rig.upstream.script = script
    async with rig.chat() as response:
        assert response.status == int(status.split(maxsplit=1)[0])
        assert error_of(await response.read())["code"] == code


@pytest.mark.parametrize(
    "path",
    [
        "/v1/tiny/chat/completions",
        "/v1/org/tiny/chat/completions",
        "/v1/org%2Ftiny/chat/completions",
    ],
)
@pytest.mark.parametrize("body", [b"{}", b'{"model":"Tiny-1"}', b'{"model":"org/tiny"}'])
async def test_a_model_in_the_path_is_enough_and_the_engine_sees_the_plain_path(
    rig: Rig, path: str, body: bytes
):
    async with rig.client.post(
        rig.url("") + path, data=body, headers={"Content-Type": "application/json"}
    ) as response:
        assert response.status == 200
        assert await response.read() == body
    assert rig.upstream.last.request_line == "POST /v1/chat/completions HTTP/1.1"
    assert rig.supervisor.leases[0].model.id == "tiny"


@pytest.mark.parametrize(
    ("query", "header", "expected"),
    [
        (b"", b"X-Odd: \xff\xfe", 200),
        (b"", b"X-Odd: caf\xc3\xa9", 200),
        (b"?x=\xff", b"X: y", 400),
        (b"?x=%zz&y", b"X: y", 200),
    ],
)
async def test_odd_bytes_in_a_head_never_break_the_gateway(
    rig: Rig, query: bytes, header: bytes, expected: int
):
    status, _, _ = await rig.raw(
        b"POST /v1/tiny/completions"
        + query
        + b" HTTP/1.1\r\nHost: localhost\r\n"
        + header
        + b"\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    )
    assert status == expected


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body_has_no_framing(rig: Rig, status: int):
    async def script(x: Exchange) -> None:
        await x.read_body()
        await x.send(b"HTTP/1.1 %d X\r\n\r\n" % status)

    rig.upstream.script = script
    async with rig.chat() as response:
        assert response.status == status
        assert "Transfer-Encoding" not in response.headers
        assert await response.read() == b""
