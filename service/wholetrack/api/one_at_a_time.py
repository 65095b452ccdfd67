"""Work that holds the lock of the interpreter for long, so that it must not slow predictions down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from anyio import to_thread

from wholetrack.api.admission import Admission

T = TypeVar("T")

# No other thread runs while a body is parsed. Without pauses, requests that follow each other would slow predictions
# down several times. With them, they take a quarter of the time of the interpreter at most.
_PAUSE = 3.0


class OneAtATime:
    """Runs functions in a thread, one after the other, with pauses while predictions are in progress.

    Args:
        predictions: Admits the predictions.
    """

    def __init__(self, predictions: Admission) -> None:
        self._predictions = predictions
        self._lock = asyncio.Lock()

    async def run(self, work: Callable[[], T]) -> T:
        """Return what ``work`` returns."""
        loop = asyncio.get_running_loop()
        await self._lock.acquire()
        began = loop.time()
        try:
            return await to_thread.run_sync(work)
        finally:
            pause_s = _PAUSE * (loop.time() - began) if self._predictions.in_progress else 0.0
            loop.call_later(pause_s, self._lock.release)
