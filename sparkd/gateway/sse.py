"""Server-sent events: the few that sparkd itself writes into a stream. Pure.

Source: WHATWG HTML, "Server-sent events"; the error event is what vLLM 0.32 and OpenAI send.
"""

from __future__ import annotations

import math

from sparkd.core.catalogue import ModelId
from sparkd.supervisor.lease import Progress

MEDIA_TYPE = "text/event-stream"
_BLANK_LINES = (b"\n\n", b"\r\n\r\n", b"\r\r")
_LONGEST_BLANK = 4


def comment(model: ModelId, progress: Progress) -> bytes:
    """A comment for people who watch the stream; parsers skip it."""
    words = [f"model={model}", f"state={progress.state}"]
    if progress.phase:
        words.append(f'phase="{progress.phase}"')
    if progress.position:
        words.append(f"position={progress.position}")
    words.append(f"waited={progress.waited:.0f}s")
    if progress.estimate is not None:
        words.append(f"estimate={math.ceil(progress.estimate)}s")
    # A phase is an engine's own words: a line break in it would end the comment.
    return b": sparkd " + " ".join(" ".join(words).split()).encode("utf-8", "replace") + b"\n\n"


def event(data: bytes) -> bytes:
    """One event whose data is `data`, which may have several lines."""
    return b"".join(b"data: " + line + b"\n" for line in data.splitlines() or [b""]) + b"\n"


class Tail:
    """Remembers how a stream ends, so that an event of ours never joins half of the engine's."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = b""

    def saw(self, chunk: bytes) -> None:
        """`chunk` was sent."""
        long = len(chunk) >= _LONGEST_BLANK
        self._last = chunk[-_LONGEST_BLANK:] if long else (self._last + chunk)[-_LONGEST_BLANK:]

    def closing(self) -> bytes:
        """What has to be sent before a new event may begin."""
        return b"" if not self._last or self._last.endswith(_BLANK_LINES) else b"\n\n"
