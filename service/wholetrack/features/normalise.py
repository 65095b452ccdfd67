"""Normalisation of windows, each independently of the others, so that a result depends on the recording alone."""

from __future__ import annotations

from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import Affine, MinMax, Normalisation, RelativeToMax, Unchanged


def normalise(windows: NDArray[np.float32], spec: Normalisation) -> NDArray[np.float32]:
    """Normalise each window separately.

    Args:
        windows: Log-mel values, ``[n_windows, frames, n_mels]``.
        spec: The normalisation; the formula is in its docstring.

    Returns:
        A new array of the same shape, float32.
    """
    match spec:
        case RelativeToMax():
            return _relative_to_max(windows, spec.range_db)
        case MinMax():
            return _min_max(windows, spec)
        case Affine():
            shifted: NDArray[np.float32] = windows + np.float32(spec.add)
            shifted *= np.float32(1.0 / spec.divide_by)
            return shifted
        case Unchanged():
            return windows.copy()
        case _:
            assert_never(spec)


def _relative_to_max(windows: NDArray[np.float32], range_db: float) -> NDArray[np.float32]:
    loudest = windows.max(axis=(1, 2), keepdims=True)
    relative: NDArray[np.float32] = windows - (loudest - np.float32(range_db))
    relative *= np.float32(1.0 / range_db)
    return np.maximum(relative, np.float32(0.0), out=relative)


def _min_max(windows: NDArray[np.float32], spec: MinMax) -> NDArray[np.float32]:
    relative = _relative_to_max(windows, spec.range_db)
    quietest = relative.min(axis=(1, 2), keepdims=True)
    span = relative.max(axis=(1, 2), keepdims=True) - quietest
    relative -= quietest
    relative *= np.float32(spec.high - spec.low) / np.where(span > 0, span, np.float32(1.0))
    relative += np.float32(spec.low)
    return relative
