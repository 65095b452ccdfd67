"""The waveform of a track, as the peaks of short intervals."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Waveform:
    """The largest absolute value of each interval, as the samples arrive.

    Args:
        sample_rate: Sample rate in Hz.
        peaks_per_s: Number of intervals per second; 0 for no peaks at all.
    """

    def __init__(self, *, sample_rate: int, peaks_per_s: int) -> None:
        self._n_per_peak = max(1, sample_rate // peaks_per_s) if peaks_per_s else 0
        self._rest: NDArray[np.float32] = np.zeros(0, dtype=np.float32)

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Add samples, ``[n_samples]``, and return the peaks of the intervals that are complete, ``[n_peaks]``."""
        if not self._n_per_peak:
            return np.zeros(0, dtype=np.float32)
        samples = np.concatenate((self._rest, samples))
        n_peaks = len(samples) // self._n_per_peak
        whole, self._rest = np.split(samples, [n_peaks * self._n_per_peak])
        peaks: NDArray[np.float32] = np.abs(whole).reshape(n_peaks, self._n_per_peak).max(axis=1)
        return peaks
