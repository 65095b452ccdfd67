"""Stopping a track from outside: the client left, its time is up, the service is shutting down."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from wholetrack.errors import ServiceError


class Cancellation:
    """Set once, from any thread; whatever is under way then is stopped by the actions registered for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reason: ServiceError | None = None
        self._actions: list[Callable[[ServiceError], None]] = []

    @property
    def reason(self) -> ServiceError | None:
        """Why the track was stopped, if it was."""
        return self._reason

    def cancel(self, reason: ServiceError) -> None:
        """Stop the track; only the first reason counts."""
        with self._lock:
            if self._reason is not None:
                return
            self._reason = reason
            actions = list(self._actions)
        for action in actions:
            action(reason)

    def check(self) -> None:
        """Raise the reason if the track was stopped.

        Raises:
            ServiceError: the reason given to :meth:`cancel`.
        """
        if self._reason is not None:
            raise self._reason

    @contextmanager
    def calling(self, action: Callable[[ServiceError], None]) -> Iterator[None]:
        """Have ``action`` called with the reason if the track is stopped inside the block, or was before."""
        with self._lock:
            self._actions.append(action)
            reason = self._reason
        if reason is not None:
            action(reason)
        try:
            yield
        finally:
            with self._lock:
                self._actions.remove(action)
