"""On which processor each decoder's threads run: together on one, which :mod:`wholetrack.sandbox.launcher` says why."""

from __future__ import annotations

import threading
from collections.abc import Iterable


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
