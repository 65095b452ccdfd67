"""Waiting for what other threads and processes do, without a guess of how long it takes."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest


def until(condition: Callable[[], bool], *, seconds: float = 10.0) -> None:
    """Go on as soon as it is so; a test fails where it never is."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.005)
    pytest.fail(f"it did not happen within {seconds:g} seconds")
