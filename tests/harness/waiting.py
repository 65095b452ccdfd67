"""Waiting for another thread or process without guessing how long it takes."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(
    condition: Callable[[], bool],
    *,
    seconds: float = 60.0,
    poll_s: float = 0.005,
    context: Callable[[], str] = str,
) -> None:
    """Return as soon as the condition holds.

    Args:
        condition: Polled until it returns true.
        seconds: Timeout.
        poll_s: Pause between two polls, in seconds.
        context: Returns text to append to the error message, such as a log.

    Raises:
        AssertionError: If the condition does not hold within the timeout.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"the condition did not hold within {seconds:g} seconds {context()}")
        time.sleep(poll_s)
