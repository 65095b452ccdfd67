"""Shares with their 95 % intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass

_Z = 1.959964


@dataclass(frozen=True, slots=True)
class Share:
    """How many of a number of cases are right.

    Attributes:
        right: Cases that are right.
        n: All cases. Of no cases nothing is known: the share is not a number, and its interval is from 0 to 1.
    """

    right: int
    n: int

    @property
    def value(self) -> float:
        """The share that is right; NaN if there are no cases."""
        return self.right / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's interval, which holds for small samples and for shares near 0 and 1 (Wilson 1927)."""
        if not self.n:
            return 0.0, 1.0
        scale = 1 + _Z**2 / self.n
        centre = (self.value + _Z**2 / (2 * self.n)) / scale
        half = _Z * math.sqrt(self.value * (1 - self.value) / self.n + _Z**2 / (4 * self.n**2)) / scale
        return centre - half, centre + half

    def __str__(self) -> str:
        """Return the share with its interval and the number of cases."""
        if not self.n:
            return "no cases"
        low, high = self.interval
        return f"{self.value:.3f} [{low:.3f}, {high:.3f}], n = {self.n}"
