"""Where and how a decoder's threads run: not woken for every frame, and together on one processor.

ffmpeg's demuxer, decoder, filters and muxer are threads that hand frames of some milliseconds to each other. Spread
over processors, they spend more on waking each other than on decoding; ``python -m bench.decoding`` measures it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from contextlib import suppress


class Processors:
    """Hands out processors to decoders, always one of those that have the fewest."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self._lock = threading.Lock()
        self._users = dict.fromkeys(sorted(numbers), 0)

    def take(self) -> int:
        """A processor for one more decoder."""
        with self._lock:
            chosen = min(self._users, key=self._users.__getitem__)
            self._users[chosen] += 1
        return chosen

    def give_back(self, processor: int) -> None:
        """The decoder that took it has ended."""
        with self._lock:
            self._users[processor] -= 1


def settle(processor: int | None = None) -> None:
    """Let the calling thread, and what it starts, run as a batch job (sched(7)), on that processor if one is given.

    A decoder is settled by the thread that starts it: it has threads of its own soon after, which inherit the place.
    Without the right to do so nothing happens.
    """
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        if processor is not None:
            os.sched_setaffinity(0, {processor})
