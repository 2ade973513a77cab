"""How a test says that this machine cannot run it. What is left out is listed last, loudly."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def leave_out(reason: str) -> NoReturn:
    """`reason` names what the machine lacks and how to get it. With CI=true it is a failure."""
    pytest.skip(reason)


def strict() -> bool:
    """Whether a test that was left out fails the run."""
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"}
