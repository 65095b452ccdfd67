"""Replace samples that are not audio."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Float formats can hold any number. Above this one, the power of a mel band overflows float32. Audio stays below 1, or
# below 32,768 if integers were written as floats.
_MAX_AMPLITUDE = 1e6


class SampleCheck:
    """Checks samples, and replaces those that are not audio.

    Attributes:
        has_replaced: Whether NaN, infinite or implausibly large samples were replaced.
        peak: Largest absolute value so far.
    """

    def __init__(self) -> None:
        self.has_replaced = False
        self.peak = 0.0

    def checked(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return samples, ``[n]``, with silence for NaN, and with infinite and implausibly large values clipped."""
        if not len(samples):
            return samples
        peak = max(float(samples.max()), -float(samples.min()))
        # Not "peak > limit": a NaN fails the comparison as well.
        if not peak <= _MAX_AMPLITUDE:
            self.has_replaced = True
            samples = np.clip(np.nan_to_num(samples), -_MAX_AMPLITUDE, _MAX_AMPLITUDE)
            peak = float(np.abs(samples).max())
        self.peak = max(self.peak, peak)
        return samples
