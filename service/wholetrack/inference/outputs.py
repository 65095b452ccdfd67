"""The outputs of the network for one track, as far as its request needs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import Rows


class Keep(Enum):
    """What to keep of an output. An embedding of 512 numbers per window takes 40 MB for 20,000 windows."""

    ROWS = auto()
    MEAN = auto()
    NOTHING = auto()


@dataclass(frozen=True, slots=True)
class TrackOutputs:
    """What was kept of the outputs of one track.

    Attributes:
        rows: For each output ``[n_windows, ...]``, or None if the rows were not kept.
        means: For each output the mean over the windows, if only that was kept, or None.
    """

    rows: tuple[NDArray[np.float32] | None, ...]
    means: tuple[NDArray[np.float64] | None, ...]

    def mean(self, output: int) -> NDArray[np.float64] | None:
        """Return the mean of an output over the windows; None if nothing was kept of it."""
        rows = self.rows[output]
        return self.means[output] if rows is None else np.asarray(rows.mean(axis=0, dtype=np.float64))


class OutputStore:
    """Collects the outputs of one track, whose slices may arrive in any order.

    Args:
        keep: What to keep of each output; None to keep the rows of all.
    """

    def __init__(self, keep: Sequence[Keep] | None = None) -> None:
        self._keep = keep
        self._rows: dict[int, tuple[NDArray[np.float32] | None, ...]] = {}
        self._sums: list[NDArray[np.float64] | None] = []
        self._n_windows = 0

    def add(self, position: int, outputs: Rows) -> None:
        """Add the outputs of the windows that start at ``position``."""
        keep = self._keep or [Keep.ROWS] * len(outputs.arrays)
        self._rows[position] = tuple(
            array if kept is Keep.ROWS else None for array, kept in zip(outputs.arrays, keep, strict=True)
        )
        # Sums in float64, so that they hardly depend on the order of the slices.
        sums = [
            array.sum(axis=0, dtype=np.float64) if kept is Keep.MEAN else None
            for array, kept in zip(outputs.arrays, keep, strict=True)
        ]
        earlier = self._sums or [None] * len(sums)
        self._sums = [new if old is None or new is None else old + new for old, new in zip(earlier, sums, strict=True)]
        self._n_windows += len(outputs)

    def collected(self) -> TrackOutputs | None:
        """Return what was kept, in the order of the windows; None if there were no windows."""
        if not self._rows:
            return None
        columns = zip(*(self._rows[position] for position in sorted(self._rows)), strict=True)
        return TrackOutputs(
            rows=tuple(None if column[0] is None else np.concatenate(column) for column in columns),
            means=tuple(None if total is None else total / self._n_windows for total in self._sums),
        )
