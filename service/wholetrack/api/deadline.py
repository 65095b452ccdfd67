"""The time limit of a request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from wholetrack.errors import ErrorKind, ServiceError


@dataclass(frozen=True, slots=True)
class Deadline:
    """The time limit of a request.

    Attributes:
        limit_s: The limit in seconds.
        began: ``time.monotonic()`` at the start of the request.
    """

    limit_s: float
    began: float = field(default_factory=time.monotonic)

    @property
    def remaining_s(self) -> float:
        """Seconds until the limit; negative once it has passed."""
        return self.began + self.limit_s - time.monotonic()

    @asynccontextmanager
    async def enforced(self) -> AsyncIterator[None]:
        """Cancel the block when the limit is exceeded.

        Raises:
            ServiceError: ``deadline_exceeded``.
        """
        try:
            async with asyncio.timeout(self.remaining_s):
                yield
        except TimeoutError as error:
            raise self.error() from error

    def error(self) -> ServiceError:
        """Return the error for a request that exceeds the limit."""
        return ServiceError(
            ErrorKind.DEADLINE_EXCEEDED, f"The request took longer than the limit of {self.limit_s:g} seconds."
        )
