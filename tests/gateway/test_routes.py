"""The table of paths."""

from __future__ import annotations

import pytest

from sparkd.errors import MethodNotAllowedError, RequestError, RouteNotFoundError
from sparkd.gateway.routes import ENDPOINTS, Healthz, Infer, ListModels, ShowModel, match

CHAT, COMPLETIONS, EMBEDDINGS = ENDPOINTS


@pytest.mark.parametrize(
    ("method", "path", "target"),
    [
        ("GET", "/healthz", Healthz()),
        ("HEAD", "/healthz", Healthz()),
        ("GET", "/v1/models", ListModels()),
        ("HEAD", "/v1/models/tiny", ShowModel("tiny")),
        ("GET", "/v1/models/org/tiny", ShowModel("org/tiny")),
        ("GET", "/v1/models/org%2Ftiny", ShowModel("org/tiny")),
        ("GET", "/v1/models/a%20b%E6%97%A5", ShowModel("a b日")),
        ("POST", "/v1/chat/completions", Infer(CHAT, None)),
        ("POST", "/v1/completions", Infer(COMPLETIONS, None)),
        ("POST", "/v1/embeddings", Infer(EMBEDDINGS, None)),
        ("POST", "/v1/tiny/chat/completions", Infer(CHAT, "tiny")),
        ("POST", "/v1/tiny/completions", Infer(COMPLETIONS, "tiny")),
        ("POST", "/v1/org/tiny/embeddings", Infer(EMBEDDINGS, "org/tiny")),
        ("POST", "/v1/org%2Ftiny/chat/completions", Infer(CHAT, "org/tiny")),
        ("POST", "/v1/chat/chat/completions", Infer(CHAT, "chat")),
    ],
)
def test_a_path_leads_where_it_should(method: str, path: str, target: object):
    assert match(method, path) == target


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/v1",
        "/v1/",
        "/v1/models/",
        "/v1/chat",
        "/v1//chat",
        "/healthz/",
        "//v1/models",
        "*",
    ],
)
def test_an_unknown_path_is_no_route(path: str):
    with pytest.raises(RouteNotFoundError):
        match("GET", path)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/healthz", ("GET", "HEAD")),
        ("DELETE", "/v1/models/tiny", ("GET", "HEAD")),
        ("GET", "/v1/chat/completions", ("POST",)),
        ("OPTIONS", "/v1/tiny/completions", ("POST",)),
        ("BREW", "/v1/models", ("GET", "HEAD")),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(method: str, path: str, allowed: tuple[str, ...]):
    with pytest.raises(MethodNotAllowedError) as caught:
        match(method, path)
    assert caught.value.allowed == allowed


def test_a_name_that_is_no_utf8_is_refused():
    with pytest.raises(RequestError):
        match("GET", "/v1/models/%ff")
