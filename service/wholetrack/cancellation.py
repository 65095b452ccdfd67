"""Cancelling a track from another thread: the client disconnected, a timeout expired, the service is shutting down."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from wholetrack.errors import ServiceError


class Cancellation:
    """A flag that any thread may set once. Setting it calls the actions that are registered at the time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reason: ServiceError | None = None
        self._actions: list[Callable[[ServiceError], None]] = []

    @property
    def reason(self) -> ServiceError | None:
        """Why the track was cancelled; None if it has not been."""
        return self._reason

    def cancel(self, reason: ServiceError) -> None:
        """Cancel the track. Later calls have no effect."""
        with self._lock:
            if self._reason is not None:
                return
            self._reason = reason
            actions = list(self._actions)
        for action in actions:
            action(reason)

    def check(self) -> None:
        """Raise the reason if the track was cancelled.

        Raises:
            ServiceError: The reason given to :meth:`cancel`.
        """
        if self._reason is not None:
            raise self._reason

    @contextmanager
    def calling(self, action: Callable[[ServiceError], None]) -> Iterator[None]:
        """Call ``action`` with the reason if the track is cancelled inside the block, or was cancelled before."""
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
