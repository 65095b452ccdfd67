"""Waiting for other threads and processes without guessing how long they take."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest


def until(condition: Callable[[], bool], *, seconds: float = 60.0) -> None:
    """Return as soon as the condition holds. Fail the test if it does not hold in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.005)
    pytest.fail(f"the condition did not hold within {seconds:g} seconds")
