"""Reads `model` and `stream` out of a request body, and nothing else. Pure.

The body itself is never changed and never written again: numbers, key order and spelling reach
the engine as the client sent them.
"""

from __future__ import annotations

import codecs
import json
from dataclasses import dataclass

from sparkd.errors import BodyTooLargeError, InvalidJsonError, RequestError

#: Up to here a body is read on the event loop: 0.5 ms of text, 7 ms of the worst JSON.
#: Beyond it `peek` belongs in a thread. Measured on CPython 3.11, 2 GHz Xeon.
QUICK_BYTES = 256 * 1024
#: The most that may be left of a body when its long strings are cut out. Without a bound, 64 MiB
#: of `[],[],` hold the interpreter lock for 5 s and 1.4 GB of memory.
MAX_OUTLINE_BYTES = 8 * 1024 * 1024
_LONG_STRING = 512
_SLICE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Peek:
    """What routing needs to know of a body."""

    model: str | None
    stream: bool


def peek(body: bytes) -> Peek:
    """Raises InvalidJsonError, or RequestError that names the field of a wrong type."""
    document = _parse(body)
    if not isinstance(document, dict):
        raise InvalidJsonError("cannot use the request body: it is not a JSON object")
    model, stream = document.get("model"), document.get("stream")
    if model is not None and not isinstance(model, str):
        raise RequestError("cannot use 'model': it is not a string", param="model")
    if stream is not None and not isinstance(stream, bool):
        raise RequestError("cannot use 'stream': it is not true or false", param="stream")
    return Peek(model or None, bool(stream))


def _parse(body: bytes) -> object:
    try:
        # As text: given bytes, json.loads would guess UTF-16 and UTF-32, which engines refuse.
        text = body.decode() if len(body) <= QUICK_BYTES else _outline(body).decode()
        return json.loads(text)
    except UnicodeDecodeError as error:
        raise InvalidJsonError(
            f"cannot read the request body: it is not UTF-8 at byte {error.start}"
        ) from None
    except RecursionError:
        raise InvalidJsonError("cannot read the request body: it is nested too deeply") from None
    except ValueError as error:
        raise InvalidJsonError(f"cannot read the request body as JSON: {error}") from None


def _outline(body: bytes) -> bytes:
    """The document with its long strings emptied.

    Big bodies are big because of prompts and images. Parsing them whole would hold the interpreter
    lock, hence the event loop, for their full length even from a thread; this takes small steps.
    """
    _check_utf8(body)
    pieces: list[bytes] = []
    copied = at = size = 0
    while (start := body.find(b'"', at)) >= 0:
        end = _string_end(body, start + 1)
        if end - start > _LONG_STRING:
            pieces.append(body[copied : start + 1])
            size += len(pieces[-1])
            copied = end
        at = end + 1
        _check_outline(size + at - copied)
    _check_outline(size + len(body) - copied)
    pieces.append(body[copied:])
    return b"".join(pieces)


def _check_utf8(body: bytes) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    view = memoryview(body)
    for at in range(0, len(body), _SLICE):
        try:
            decoder.decode(view[at : at + _SLICE], final=at + _SLICE >= len(body))
        except UnicodeDecodeError as error:
            where = f"after byte {max(0, at - 4) + error.start}"
            raise InvalidJsonError(
                f"cannot read the request body: it is not UTF-8 {where}"
            ) from None


def _check_outline(size: int) -> None:
    if size > MAX_OUTLINE_BYTES:
        raise BodyTooLargeError(
            f"cannot accept the body: it has more than {MAX_OUTLINE_BYTES} bytes besides long texts"
        )


def _string_end(body: bytes, at: int) -> int:
    """Where the string that begins at `at` has its closing quote."""
    while (end := body.find(b'"', at)) >= 0:
        before = end
        while body[before - 1] == 0x5C:  # a backslash
            before -= 1
        if (end - before) % 2 == 0:
            return end
        at = end + 1
    raise InvalidJsonError("cannot read the request body as JSON: a string has no end")
