"""Asks the daemon one question as any client would, and shows the answer as it arrives, with times.

Knows the public surface: chat completions on loopback, as server-sent events; and, for one line of
the times, the control API's status.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from sparkd.errors import ProvisionError
from sparkd.provision.progress import Progress, Step

QUESTION = "Hello, who are you?"
MAX_TOKENS = 40
#: Seconds without a single byte after which no answer will come; comments count.
SILENCE_LIMIT = 120.0
_PHASE = re.compile(r'phase="([^"]*)"')


@dataclass(slots=True, kw_only=True)
class Times:
    """When things happened, on the monotonic clock. None: it did not."""

    sent: float
    first_comment: float | None = None
    first_token: float | None = None
    last_token: float | None = None
    tokens: int = 0


def ask(port: int, model: str, progress: Progress) -> Times:
    """Streams one answer to the terminal. Raises ProvisionError if there is none."""
    times = Times(sent=time.monotonic())
    progress.line(f'Asking {model}: "{QUESTION}"')
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SILENCE_LIMIT)
    try:
        with closing(connection):
            _converse(connection, model, times, progress)
    except (OSError, http.client.HTTPException) as error:
        raise ProvisionError(f"cannot get an answer from {model}: {error}") from None
    finally:
        progress.line("\n")
    return times


def _converse(
    connection: http.client.HTTPConnection, model: str, times: Times, progress: Progress
) -> None:
    with ExitStack() as open_answer:
        with progress.step(f"Waiting for {model}") as step:
            events = _events(open_answer.enter_context(_send(connection, model)))
            text = _first_text(events, times, step)
        progress.write(f"\n{model}:")
        while text is not None:
            progress.write(text)
            times.last_token = time.monotonic()
            text = _next_text(events, times)


def show_times(times: Times, ready: float | None, progress: Progress) -> None:
    """One line per moment, in seconds since the request was sent."""
    rows = (
        ("request sent", times.sent),
        ("first sign of life (SSE comment)", times.first_comment),
        ("model ready", ready),
        ("first token", times.first_token),
        (f"last token ({times.tokens} in all)", times.last_token),
    )
    for what, moment in rows:
        if moment is not None:
            progress.line(f"  {moment - times.sent:7.2f} s  {what}")


def ready_moment(control_socket: Path, model: str) -> float | None:
    """When the model became ready, on the monotonic clock; None if the control API does not say."""
    connection = http.client.HTTPConnection("localhost", timeout=5.0)
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.connect(str(control_socket))
        connection.request("GET", "/sparkd/v1/status")
        status = json.load(connection.getresponse())
    except (OSError, http.client.HTTPException, ValueError):
        return None  # a line of the table is missing then, nothing else
    finally:
        connection.close()
    now = time.monotonic()
    ages = [one["ready_seconds"] for one in status["instances"] if one["model"] == model]
    return next((now - age for age in ages if age is not None), None)


def _send(connection: http.client.HTTPConnection, model: str) -> http.client.HTTPResponse:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": MAX_TOKENS,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    answer = connection.getresponse()
    if answer.status != http.client.OK:
        raise _refused(model, answer.read())
    return answer


def _refused(model: str, body: bytes) -> ProvisionError:
    try:
        why = json.loads(body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        why = body.decode("utf-8", "replace")[:200]
    return ProvisionError(f"cannot get an answer from {model}: {why}")


def _events(answer: http.client.HTTPResponse) -> Iterator[str]:
    """The stream's lines that are not empty: comments and data."""
    for line in answer:
        text = line.decode("utf-8", "replace").strip()
        if text == "data: [DONE]":
            return
        if text:
            yield text
    raise http.client.IncompleteRead(b"")


def _first_text(events: Iterator[str], times: Times, step: Step) -> str | None:
    for line in events:
        if line.startswith(":"):
            times.first_comment = times.first_comment or time.monotonic()
            if found := _PHASE.search(line):
                step.phase(found[1])
        elif text := _text(line, times):
            times.first_token = time.monotonic()
            return text
    return None


def _next_text(events: Iterator[str], times: Times) -> str | None:
    return next((text for line in events if (text := _text(line, times))), None)


def _text(line: str, times: Times) -> str:
    """What a data line adds to the answer; it may be nothing (a role, the usage)."""
    if not line.startswith("data:"):
        return ""
    event = json.loads(line.removeprefix("data:"))
    if "error" in event:
        raise ProvisionError(f"cannot get an answer: {event['error'].get('message')}")
    times.tokens = (event.get("usage") or {}).get("completion_tokens", times.tokens)
    return "".join(choice["delta"].get("content") or "" for choice in event["choices"])
