"""The time limit of a request."""

from __future__ import annotations

import time
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

    def error(self) -> ServiceError:
        """Return the error for a request that exceeds the limit."""
        return ServiceError(
            ErrorKind.DEADLINE_EXCEEDED, f"The request took longer than the limit of {self.limit_s:g} seconds."
        )
