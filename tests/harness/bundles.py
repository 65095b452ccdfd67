"""Bundles for tests, and the arrays in them."""

from __future__ import annotations

import numpy as np

from wholetrack.contracts import Rows


def resized(rows: Rows, n_windows: int) -> Rows:
    """Repeat windows until there are as many as asked for."""
    return Rows(tuple(np.resize(array, (n_windows, *array.shape[1:])) for array in rows.arrays))
