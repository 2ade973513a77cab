"""Waiting for something outside this process to become true."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

PAUSE = 0.02


def wait_until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not become true"
        threading.Event().wait(PAUSE)
