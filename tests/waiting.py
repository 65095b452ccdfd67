"""Waiting for what other threads and processes do, without a guess of how long it takes."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest


def until(condition: Callable[[], bool]) -> None:
    """Go on as soon as it is so; a test fails where it never is."""
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.005)
    pytest.fail("it did not happen within ten seconds")
