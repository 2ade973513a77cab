"""docs/sparkctl.md says what is true: commands, exit codes, routes and the fields of the JSON."""

from __future__ import annotations

import re
from typing import get_type_hints

import pytest

from sparkd.api import shapes
from sparkd.api.app import ROUTES
from sparkd.cli.failures import ExitCode
from sparkd.cli.main import COMMANDS
from tests.cli.conftest import ROOT

TEXT = (ROOT / "docs" / "sparkctl.md").read_text(encoding="utf-8")


def test_every_command_is_documented():
    assert set(re.findall(r"^    sparkctl (\w+)", TEXT, flags=re.MULTILINE)) == set(COMMANDS)


def test_every_exit_code_is_documented():
    assert {int(n) for n in re.findall(r"^\| (\d+) \|", TEXT, flags=re.MULTILINE)} == set(ExitCode)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
def test_every_route_is_documented_with_who_may(route):
    rows = [line for line in TEXT.splitlines() if f"`{route.method} {route.path}`" in line]
    assert len(rows) == 1
    assert rows[0].endswith(f"| {route.access} |")


@pytest.mark.parametrize(
    "shape",
    [
        shapes.StatusShape,
        shapes.PoolShape,
        shapes.InstanceShape,
        shapes.WaitingShape,
        shapes.FailureShape,
        shapes.ModelShape,
        shapes.UnloadShape,
        shapes.ReloadShape,
        shapes.ProblemShape,
    ],
)
def test_every_field_of_the_json_is_documented_in_order(shape):
    documented = [re.split(r",\s+", found) for found in re.findall(r"\{([a-z_,\s]+)\}", TEXT)]
    assert list(get_type_hints(shape)) in documented
