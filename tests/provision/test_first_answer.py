"""The first answer, asked of a scripted daemon on a real socket."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from sparkd.errors import ProvisionError
from sparkd.provision.first_answer import ask, ready_moment, show_times
from tests.provision.kit import Shown

COMMENT = ': sparkd model=tiny state=starting phase="loading weights" waited=1s\n\n'


def chunk(text: str) -> str:
    return f"data: {json.dumps({'choices': [{'delta': {'content': text}}]})}\n\n"


USAGE = f"data: {json.dumps({'choices': [], 'usage': {'completion_tokens': 2}})}\n\n"
ROLE = f"data: {json.dumps({'choices': [{'delta': {'role': 'assistant', 'content': ''}}]})}\n\n"
DONE = "data: [DONE]\n\n"


@contextmanager
def daemon(status: int, body: str) -> Iterator[int]:
    """The port of a daemon that gives this answer to every request."""

    class Scripted(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Scripted) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_the_answer_is_shown_with_the_phases_before_it_and_the_times_of_each_step(shown: Shown):
    stream = COMMENT + COMMENT + ROLE + chunk(" Hello") + chunk(" there") + USAGE + DONE
    with daemon(200, stream) as port:
        times = ask(port, "tiny", shown.progress)
    show_times(times, times.sent + 0.5, shown.progress)
    assert "tiny: Hello there\n" in shown.text
    assert shown.text.count("loading weights") == 1
    assert times.tokens == 2
    moments = (times.sent, times.first_comment, times.first_token, times.last_token)
    assert None not in moments
    assert sorted(moments) == list(moments)  # type: ignore[type-var]
    rows = shown.text.splitlines()[-5:]
    assert [row.split(" s  ")[1] for row in rows] == [
        "request sent",
        "first sign of life (SSE comment)",
        "model ready",
        "first token",
        "last token (2 in all)",
    ]


def test_a_warm_answer_has_no_line_for_a_comment_that_never_came(shown: Shown):
    with daemon(200, chunk("Hi") + DONE) as port:
        times = ask(port, "tiny", shown.progress)
    show_times(times, None, shown.progress)
    assert "SSE comment" not in shown.text
    assert "model ready" not in shown.text


FAILURES = (
    (503, json.dumps({"error": {"message": "it does not fit"}}), "it does not fit"),
    (502, "bad gateway", "bad gateway"),
    (200, COMMENT + 'data: {"error": {"message": "the engine died"}}\n\n', "the engine died"),
    (200, chunk("Hel"), "IncompleteRead"),
    (200, "", "IncompleteRead"),
)


@pytest.mark.parametrize(("status", "body", "why"), FAILURES, ids=["503", "502", "e", "cut", "0"])
def test_an_answer_that_does_not_come_is_one_sentence(
    shown: Shown, status: int, body: str, why: str
):
    with daemon(status, body) as port, pytest.raises(ProvisionError, match=why) as caught:
        ask(port, "tiny", shown.progress)
    assert caught.value.message.startswith("cannot get an answer")


def test_a_daemon_that_is_not_there_is_told(shown: Shown, unused_tcp_port: int):
    with pytest.raises(ProvisionError, match="Connection refused"):
        ask(unused_tcp_port, "tiny", shown.progress)


def test_a_missing_control_socket_leaves_out_one_line_only():
    assert ready_moment(Path("/nonexistent/control.sock"), "tiny") is None
