"""What is read out of a body, and how much that may cost."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from sparkd.errors import BodyTooLargeError, InvalidJsonError, RequestError
from sparkd.gateway.peek import MAX_OUTLINE_BYTES, QUICK_BYTES, Peek, peek

FILLER = "x" * (2 * QUICK_BYTES)


def big(body: bytes) -> bytes:
    """The same document, beyond the quick path."""
    return body.replace(b"FILLER", FILLER.encode())


@pytest.mark.parametrize("pad", ["", "FILLER"])
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model":"a"}', Peek("a", False)),
        (b' { "stream" : true , "model" : "a/b" } ', Peek("a/b", True)),
        (b'{"model":"a","stream":false}', Peek("a", False)),
        (b'{"model":"a","stream":null}', Peek("a", False)),
        (b'{"model":null}', Peek(None, False)),
        (b'{"model":""}', Peek(None, False)),
        (b"{}", Peek(None, False)),
        (b'{"model":"a","model":"b"}', Peek("b", False)),
        (b'{"x":{"model":"inner","stream":true},"model":"a"}', Peek("a", False)),
        (b'{"x":"\\"model\\":\\"inner\\"","model":"a"}', Peek("a", False)),
        (b'{"x":"\\\\","model":"a"}', Peek("a", False)),
        (b'{"model":"\\u0061"}', Peek("a", False)),
        ('{"model":"日本"}'.encode(), Peek("日本", False)),
    ],
)
def test_model_and_stream_are_found(body: bytes, expected: Peek, pad: str):
    padded = big(body.replace(b"{", b'{"pad":"%s",' % pad.encode(), 1)) if pad else body
    padded = padded.replace(b",}", b"}")
    assert peek(padded) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"{",
        b'{"model":"a"',
        b'{"model":"a"}}',
        b'{"model":"a",}',
        b"{'model':'a'}",
        b"\xef\xbb\xbf{}",
        '{"model":"a"}'.encode("utf-16"),
        '{"model":"a"}'.encode("utf-16-le"),
        b'{"model":"\xff"}',
        b'{"model":"a\x00"}',
        b'{"a":' + b"[" * 100_000,
        b'{"seed":' + b"1" * 5000 + b"}",
        b'{"pad":"FILLER","model":"\xff"}',
        b'{"pad":"FILLER',
        b'{"pad":"FILLER"',
        b'{"pad":"FILLER\xe6"}',
        b'{"pad":"FILLER","a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_what_is_no_utf8_json_object_is_refused(body: bytes):
    with pytest.raises(InvalidJsonError):
        peek(big(body))


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"model":1}', "model"),
        (b'{"model":["a"]}', "model"),
        (b'{"model":{}}', "model"),
        (b'{"model":true}', "model"),
        (b'{"model":"a","stream":"true"}', "stream"),
        (b'{"model":"a","stream":1}', "stream"),
    ],
)
def test_a_wrong_type_names_its_field(body: bytes, param: str):
    with pytest.raises(RequestError) as caught:
        peek(body)
    assert caught.value.param == param


def test_both_paths_see_the_same_document():
    text = '日本\\n\\"é\\\\😀' * 300
    document = {"pad": FILLER, "s": [text, "", '"', "\\"], "model": "m", "stream": True}
    for ascii_only in (True, False):
        body = json.dumps(document, ensure_ascii=ascii_only).encode()
        assert len(body) > QUICK_BYTES
        assert peek(body) == Peek("m", True)


@pytest.mark.parametrize("unit", [b"[],", b'"",', b"1,", b'{"":0},'])
def test_a_body_that_is_all_structure_is_refused_before_it_is_built(unit: bytes):
    body = b'{"model":"a","x":[' + unit * (2 * MAX_OUTLINE_BYTES // len(unit)) + b"0]}"
    started = time.monotonic()
    with pytest.raises(BodyTooLargeError):
        peek(body)
    assert time.monotonic() - started < 10.0


@pytest.mark.parametrize("text", ["QUJD", "日本", "a line of text\\n"])
async def test_64_mib_do_not_hold_up_the_event_loop(text: str):
    body = (
        b'{"model":"a","x":"' + (text.encode() * (64 * 1024 * 1024 // len(text.encode()))) + b'"}'
    )
    loop = asyncio.get_running_loop()
    worst = 0.0
    async with asyncio.TaskGroup() as group:
        parsing = group.create_task(asyncio.to_thread(peek, body))
        while not parsing.done():
            before = loop.time()
            await asyncio.sleep(0.001)
            worst = max(worst, loop.time() - before)
    assert parsing.result() == Peek("a", False)
    assert worst < 0.1, f"the loop stood still for {worst:.3f} s"
