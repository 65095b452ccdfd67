"""Admission control: limits on concurrent requests of one kind and on their wait, and when to retry a rejected one."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from statistics import fmean

from wholetrack.errors import ErrorKind, ServiceError

_RECENT_REQUESTS = 32
_DEFAULT_RETRY_S = 5
_MAX_RETRY_S = 600
# Without a short wait, a permit that becomes free while requests are rejected stays unused until the next request.
_GRACE_S = 0.01


class Admission:
    """Admits requests of one kind up to a limit. Not thread-safe: for use on the event loop only.

    Args:
        limit: Maximum number of requests in progress.
        max_wait_s: How long an admitted request may be expected to wait, in seconds.
        expected_wait_s: Returns how long a request would wait, in seconds, given the number in progress.
        kind: What clients are told is in progress, in the plural.
        grace_s: How long a request may wait for a permit before it is rejected, in seconds.
        clock: Returns the current time in seconds.

    Attributes:
        in_progress: Number of requests admitted and not yet finished.
        draining: Whether all new requests are rejected because the service is shutting down. Setting it wakes those
            that wait in :meth:`wait_draining`.
    """

    def __init__(
        self,
        limit: int,
        *,
        max_wait_s: float = math.inf,
        expected_wait_s: Callable[[int], float] = lambda _: 0.0,
        kind: str = "predictions",
        grace_s: float = _GRACE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.in_progress = 0
        self._draining = asyncio.Event()
        self._kind = kind
        self._limit = limit
        self._max_wait_s = max_wait_s
        self._expected_wait_s = expected_wait_s
        self._permits = asyncio.Semaphore(limit)
        self._grace_s = grace_s
        self._clock = clock
        self._recent_durations: deque[float] = deque(maxlen=_RECENT_REQUESTS)
        self._last_admitted = clock()
        self._n_rejected = 0

    @property
    def draining(self) -> bool:
        """Whether all new requests are rejected because the service is shutting down."""
        return self._draining.is_set()

    @draining.setter
    def draining(self, value: bool) -> None:
        """Begin to reject requests, or accept them again."""
        if value:
            self._draining.set()
        else:
            self._draining.clear()

    async def wait_draining(self) -> None:
        """Wait until the service begins to shut down."""
        await self._draining.wait()

    @asynccontextmanager
    async def admit(self) -> AsyncIterator[None]:
        """Hold a permit for one request.

        Raises:
            ServiceError: ``overloaded``, with the estimated time until the next request can be admitted, or
                ``draining``.
        """
        has_permit = await self._acquire_permit()
        try:
            self._check(has_permit=has_permit)
        except ServiceError:
            if has_permit:
                self._permits.release()
            raise
        began = self._last_admitted = self._clock()
        self.in_progress += 1
        if self.in_progress < self._limit and not self._excess_wait_s():
            # Another request could be admitted, so no rejected client is still waiting to retry.
            self._n_rejected = 0
        try:
            yield
        finally:
            self._permits.release()
            self.in_progress -= 1
            self._recent_durations.append(self._clock() - began)
            self._n_rejected = max(0, self._n_rejected - 1)

    def _check(self, *, has_permit: bool) -> None:
        if self.draining:
            raise draining_error()
        if not has_permit:
            raise self._rejection(f"The limit of {self._kind} in progress is reached ({self._limit}).")
        if self._excess_wait_s():
            raise self._rejection(f"The wait would be longer than the limit of {self._max_wait_s:g} s.")

    def _excess_wait_s(self) -> float:
        """Return by how much the wait of a new request would exceed the limit, in seconds."""
        return max(0.0, self._expected_wait_s(self.in_progress) - self._max_wait_s)

    def _rejection(self, reason: str) -> ServiceError:
        self._n_rejected += 1
        retry_after_s = self._retry_after_s()
        return ServiceError(
            ErrorKind.OVERLOADED, f"{reason} Try again in {retry_after_s} s.", retry_after_s=retry_after_s
        )

    async def _acquire_permit(self) -> bool:
        try:
            async with asyncio.timeout(self._grace_s):
                return await self._permits.acquire()
        except TimeoutError:
            return False

    def _retry_after_s(self) -> int:
        """Estimate the time in seconds until the client that was rejected last can be admitted.

        A request finishes every ``duration / in_progress`` seconds on average (Little's law), and one client is
        admitted for each. A service that is stuck finishes none, so the interval is at least the time since the last
        admission.
        """
        if not self._recent_durations:
            return _DEFAULT_RETRY_S
        interval_s = max(fmean(self._recent_durations) / max(self.in_progress, 1), self._clock() - self._last_admitted)
        return min(max(math.ceil(self._n_rejected * interval_s), 1), _MAX_RETRY_S)


def draining_error() -> ServiceError:
    """Return the error for requests that arrive, or are still in progress, when the service shuts down."""
    return ServiceError(ErrorKind.DRAINING, "The service is shutting down. Send the request to another instance.")
