"""Arrays with one row per window: the inputs and the outputs of a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Rows:
    """Several arrays of equal length, which are cut and joined together.

    Attributes:
        arrays: One array per input or output of the network, ``[n_windows, ...]``; at least one.
    """

    arrays: tuple[NDArray[np.float32], ...]

    @classmethod
    def of(cls, *arrays: NDArray[np.float32]) -> Rows:
        """Return rows of these arrays."""
        return cls(arrays)

    @classmethod
    def zeros(cls, n_windows: int, shapes: Sequence[tuple[int, ...]]) -> Rows:
        """Return zeros, with arrays of the shapes ``[n_windows, *shape]``."""
        return cls(tuple(np.zeros((n_windows, *shape), dtype=np.float32) for shape in shapes))

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        """Return the rows of all parts, one after the other; at least one part."""
        if len(parts) == 1:
            return parts[0]
        return cls(tuple(np.concatenate(columns) for columns in zip(*(part.arrays for part in parts), strict=True)))

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, rows: slice) -> Rows:
        return Rows(tuple(array[rows] for array in self.arrays))

    def copy(self) -> Rows:
        """Return a copy, which does not keep the arrays alive that these rows were cut from."""
        return Rows(tuple(array.copy() for array in self.arrays))

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of one row of each array."""
        return tuple(array.shape[1:] for array in self.arrays)

    @property
    def nbytes(self) -> int:
        """Size of all arrays in bytes."""
        return sum(array.nbytes for array in self.arrays)


def unit_length(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return vectors scaled to unit length, ``[..., length]``; a vector of zeros stays as it is."""
    lengths = np.sqrt(np.sum(np.square(vectors, dtype=np.float64), axis=-1, keepdims=True))
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1.0), dtype=np.float32)
