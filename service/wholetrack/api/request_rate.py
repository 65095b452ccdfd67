"""The number of requests per minute that an API key may send."""

from __future__ import annotations

import math
import time


class RequestRate:
    """Counts requests in a sliding window of a minute. Not thread-safe: for use on the event loop only.

    Args:
        per_minute: The limit.

    Attributes:
        per_minute: The limit.
    """

    def __init__(self, per_minute: int) -> None:
        # Importing limits is slow, so only services that limit rates do it.
        from limits import RateLimitItemPerMinute
        from limits.storage import MemoryStorage
        from limits.strategies import SlidingWindowCounterRateLimiter

        self.per_minute = per_minute
        self._limit = RateLimitItemPerMinute(per_minute)
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    @property
    def retry_after_s(self) -> int:
        """Seconds until another request may be counted; at least 1."""
        return max(1, math.ceil(self._limiter.get_window_stats(self._limit).reset_time - time.time()))

    def count(self) -> bool:
        """Count a request; return whether it is within the limit. Requests above the limit are not counted."""
        return self._limiter.hit(self._limit)

    def uncount(self) -> None:
        """Undo the last :meth:`count`."""
        self._limiter.hit(self._limit, cost=-1)
