"""Resample mono audio as a stream, with the resampler that librosa uses."""

from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import NDArray


class Resampler:
    """Resamples a stream to another sample rate.

    The quality is that of ``librosa.resample`` with ``res_type="soxr_hq"``, its default. The result does not depend on
    how the audio is divided into blocks.

    Args:
        source_rate: Sample rate of the input in Hz.
        target_rate: Sample rate of the output in Hz.
    """

    def __init__(self, source_rate: int, target_rate: int) -> None:
        self._stream = (
            None
            if source_rate == target_rate
            else soxr.ResampleStream(source_rate, target_rate, 1, dtype="float32", quality="HQ")
        )

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Resample a block, ``[n]``. The output, ``[m]``, lags behind the input by some milliseconds."""
        return self._run(samples, is_last=False)

    def finish(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Resample the last block, ``[n]``, and return everything that is left, ``[m]``."""
        return self._run(samples, is_last=True)

    def _run(self, samples: NDArray[np.float32], *, is_last: bool) -> NDArray[np.float32]:
        if self._stream is None:
            return samples
        resampled: NDArray[np.float32] = self._stream.resample_chunk(samples, last=is_last)
        return resampled
