"""Normalisation of windows: always of one window by itself, so that an answer depends on the recording alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.contracts import RelativeToMax


def normalise(windows: NDArray[np.float32], spec: RelativeToMax) -> NDArray[np.float32]:
    """Make the level of each window not matter.

    Args:
        windows: log-mel values in dB, ``[n_windows, frames, n_mels]``.
        spec: which normalisation.

    Returns:
        ``max(dB - max(dB), -range_db) / range_db + 1`` per window: 1.0 at a window's loudest point, 0.0 at
        ``range_db`` below it and further down, same shape, float32.
    """
    loudest = windows.max(axis=(1, 2), keepdims=True)
    relative: NDArray[np.float32] = windows - (loudest - np.float32(spec.range_db))
    relative *= np.float32(1.0 / spec.range_db)
    return np.maximum(relative, np.float32(0.0), out=relative)
