"""The few events that sparkd writes itself."""

from __future__ import annotations

import pytest

from sparkd.core.catalogue import ModelId
from sparkd.core.quantities import Seconds
from sparkd.core.status import ModelState
from sparkd.gateway.sse import Tail, comment, event
from sparkd.supervisor.lease import Progress


def test_a_comment_says_what_is_known():
    progress = Progress(
        state=ModelState.STARTING,
        phase="loading weights 40%",
        position=0,
        waited=Seconds(20.2),
        estimate=Seconds(14.1),
    )
    assert comment(ModelId("tiny"), progress) == (
        b': sparkd model=tiny state=starting phase="loading weights 40%" '
        b"waited=20s estimate=15s\n\n"
    )


def test_a_comment_leaves_out_what_is_not_known_and_stays_one_line():
    progress = Progress(
        state=ModelState.QUEUED,
        phase="a\n\ndata: b\r",
        position=2,
        waited=Seconds(0),
        estimate=None,
    )
    assert comment(ModelId("m"), progress) == (
        b': sparkd model=m state=queued phase="a data: b " position=2 waited=0s\n\n'
    )


@pytest.mark.parametrize(
    ("data", "text"),
    [(b"{}", b"data: {}\n\n"), (b"a\nb", b"data: a\ndata: b\n\n"), (b"", b"data: \n\n")],
)
def test_an_event_holds_its_data_whatever_the_lines(data: bytes, text: bytes):
    assert event(data) == text


@pytest.mark.parametrize(
    ("chunks", "closing"),
    [
        ([], b""),
        ([b"data: {}\n\n"], b""),
        ([b"data: {}\r\n\r\n"], b""),
        ([b"data: {}\n", b"\n"], b""),
        ([b"data: {}\r", b"\n", b"\r", b"\n"], b""),
        ([b"data: {}\n"], b"\n\n"),
        ([b"data: {}\n\n", b"d"], b"\n\n"),
    ],
)
def test_half_an_event_is_closed_before_a_new_one_begins(chunks: list[bytes], closing: bytes):
    tail = Tail()
    for chunk in chunks:
        tail.saw(chunk)
    assert tail.closing() == closing
