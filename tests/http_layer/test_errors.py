"""The error table: complete, and the OpenAI object always the same shape."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from sparkd import errors
from sparkd.http.errors import (
    FACES,
    LOG_TAIL_CHARACTERS,
    LOG_TAIL_LINES,
    error_headers,
    error_object,
    face_of,
    render,
)


def tree(root: type[errors.SparkdError]) -> Iterator[type[errors.SparkdError]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__.startswith("sparkd."):
            yield from tree(child)


def make(cls: type[errors.SparkdError]) -> errors.SparkdError:
    if issubclass(cls, errors.ConfigError):
        return cls([errors.Problem(where="a.toml: x", message="wrong", hint="right")])
    if issubclass(cls, errors.MethodNotAllowedError):
        return cls("no", allowed=["GET", "HEAD"])
    if issubclass(cls, errors.StartFailedError):
        return cls("no", cause="unknown")
    return cls("no")


@pytest.mark.parametrize("cls", list(tree(errors.SparkdError)), ids=lambda cls: cls.__name__)
def test_every_error_of_the_tree_has_its_own_row_and_renders_as_the_openai_object(cls):
    assert cls in FACES
    error = make(cls)
    answer = render(error)
    assert answer.status == face_of(error).status >= 400
    assert answer.content_type == "application/json"
    assert isinstance(answer.body, bytes)
    inner = json.loads(answer.body)["error"]
    assert {"message", "type", "param", "code"} <= set(inner)
    assert inner["code"] == error.code
    assert inner["message"]


def test_the_table_has_no_row_for_a_class_that_is_gone():
    assert set(FACES) == set(tree(errors.SparkdError))


@pytest.mark.parametrize(("seconds", "header"), [(0.0, "1"), (0.2, "1"), (2.1, "3"), (30, "30")])
def test_retry_after_is_a_whole_number_of_seconds_and_never_zero(seconds, header):
    assert error_headers(errors.QueueFullError("full", retry_after=seconds)) == {
        "Retry-After": header
    }


def test_without_knowledge_there_is_no_retry_after():
    assert error_headers(errors.QueueFullError("full")) == {}


def test_a_wrong_method_is_told_the_right_ones():
    answer = render(errors.MethodNotAllowedError("no", allowed=["GET", "HEAD"]))
    assert answer.headers["Allow"] == "GET, HEAD"


def test_the_hint_is_part_of_the_message():
    inner = error_object(errors.ModelNotFoundError("cannot find 'x'", hint="try y"))["error"]
    assert inner == {
        "message": "cannot find 'x' (hint: try y)",
        "type": "not_found_error",
        "param": None,
        "code": "model_not_found",
    }


def test_a_failed_start_carries_its_cause_and_a_bounded_end_of_the_log():
    tail = tuple(f"line {n} " + "x" * 100 for n in range(200))
    error = errors.StartFailedError("cannot start m", cause="bad_flag", log_tail=tail)
    inner = json.loads(render(error).body)["error"]  # type: ignore[arg-type]
    assert inner["cause"] == "bad_flag"
    lines = inner["log_tail"]
    assert lines == list(tail[-len(lines) :])
    assert 10 < len(lines) <= LOG_TAIL_LINES
    assert sum(len(line) + 1 for line in lines) <= LOG_TAIL_CHARACTERS


def test_all_problems_of_a_configuration_are_listed():
    problems = [
        errors.Problem(where="a.toml: x", message="wrong", hint="right"),
        errors.Problem(where="b.toml", message="missing"),
    ]
    inner = json.loads(render(errors.ConfigError(problems)).body)["error"]  # type: ignore[arg-type]
    assert inner["problems"] == [
        {"where": "a.toml: x", "message": "wrong", "hint": "right"},
        {"where": "b.toml", "message": "missing", "hint": None},
    ]


def test_an_error_that_quotes_broken_text_still_renders():
    inner = json.loads(render(errors.ModelNotFoundError("no '\ud800'")).body)["error"]  # type: ignore[arg-type]
    assert "no" in inner["message"]
