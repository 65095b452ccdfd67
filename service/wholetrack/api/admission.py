"""How many predictions are under way at most, and when somebody who was turned away should come back."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from statistics import fmean

from wholetrack.errors import ErrorKind, ServiceError

_REMEMBERED = 32
_UNKNOWN_S = 5
_LONGEST_S = 600
# A place that becomes free while others are turned away would stand empty until the next one comes.
_PATIENCE_S = 0.01


class Admission:
    """Lets predictions in while there is room; used by the event loop alone.

    Args:
        most: that are under way at a time.
        patience_s: for which one more may wait for a place, in seconds.
        clock: that says how long predictions last.

    Attributes:
        under_way: predictions admitted and not yet ended.
        draining: whether no more are admitted because the service is about to stop.
    """

    def __init__(
        self, most: int, *, patience_s: float = _PATIENCE_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.under_way = 0
        self.draining = False
        self._most = most
        self._places = asyncio.Semaphore(most)
        self._patience_s = patience_s
        self._clock = clock
        self._lasted: deque[float] = deque(maxlen=_REMEMBERED)
        self._last_admitted = clock()
        self._turned_away = 0

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """A place for one prediction.

        Raises:
            ServiceError: ``overloaded``, with the time after which there should be a place, or ``draining``.
        """
        has_place = await self._found_place()
        if self.draining:
            if has_place:
                self._places.release()
            raise self.goodbye()
        if not has_place:
            self._turned_away += 1
            raise ServiceError(
                ErrorKind.OVERLOADED,
                f"{self.under_way} predictions are under way; try again when Retry-After says.",
                retry_after_s=self._retry_after_s(),
            )
        began = self._last_admitted = self._clock()
        self.under_way += 1
        if self.under_way < self._most:
            # There was room to spare: nobody who was turned away still waits for a place.
            self._turned_away = 0
        try:
            yield
        finally:
            self._places.release()
            self.under_way -= 1
            self._lasted.append(self._clock() - began)
            self._turned_away = max(0, self._turned_away - 1)

    async def _found_place(self) -> bool:
        try:
            async with asyncio.timeout(self._patience_s):
                return await self._places.acquire()
        except TimeoutError:
            return False

    @staticmethod
    def goodbye() -> ServiceError:
        """What is said to those who come while the service stops."""
        return ServiceError(ErrorKind.DRAINING, "The service is shutting down; send the request to another instance.")

    def _retry_after_s(self) -> int:
        """Seconds until a place should be free for the last of those turned away.

        Of as many predictions as there is room for, each as long as the last ones, one ends every so often (Little's
        law). A service that is stuck frees no place: it took at least the time since the last one was given away.
        """
        if not self._lasted:
            return _UNKNOWN_S
        per_place_s = max(fmean(self._lasted) / self._most, self._clock() - self._last_admitted)
        return min(max(math.ceil(self._turned_away * per_place_s), 1), _LONGEST_S)
