"""A feature worker that reads the output of ffmpeg, but computes nothing, for ``bench.canned_service``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import Rows
from wholetrack.extraction import messages, worker
from wholetrack.extraction.windows import ExtractedWindows
from wholetrack.features.grid import WindowGrid
from wholetrack.features.inputs import InputFeatures

_MAX_BLOCKS = 64
_Shapes = tuple[tuple[int, int], ...]


class CannedExtractor:
    """Windows of zeros at the times of real ones, in place of ``wholetrack.extraction.windows.WindowExtractor``."""

    def __init__(self, features: InputFeatures, grid: WindowGrid, **_: object) -> None:
        self._shapes = features.shapes
        self._grid = grid
        self._n_samples = self._n_windows = 0

    def push(self, samples: NDArray[np.float32], *, is_last: bool) -> ExtractedWindows:
        """Count samples, and return the windows that are complete."""
        self._n_samples += len(samples)
        starts = list(self._starts(is_last=is_last))
        self._n_windows += len(starts)
        return canned_windows([self._grid.frames.time_s(first) for first in starts], self._shapes)

    def _starts(self, *, is_last: bool) -> Iterator[int]:
        if is_last:
            yield from self._grid.starts(self._n_samples, from_window=self._n_windows)
            return
        window = self._n_windows
        while self._grid.fits(first := self._grid.start(window), self._n_samples):
            yield first
            window += 1


def canned_windows(start_s: Sequence[float], shapes: _Shapes) -> ExtractedWindows:
    """Return windows of zeros that do not count as silent."""
    return ExtractedWindows(
        start_s=np.array(start_s, dtype=np.float64),
        silent=np.zeros(len(start_s), dtype=np.bool_),
        rows=Rows(tuple(np.broadcast_to(np.float32(0), (len(start_s), *shape)) for shape in shapes)),
        peaks=np.zeros(0, dtype=np.float32),
    )


def write_arrays(windows: ExtractedWindows) -> int:
    """Return another descriptor of memory that was written before."""
    assert isinstance(windows.rows, Rows)
    return os.dup(_memory(tuple(windows.start_s.tolist()), windows.rows.shapes))


@lru_cache(maxsize=_MAX_BLOCKS)
def _memory(start_s: tuple[float, ...], shapes: _Shapes) -> int:
    return messages.write_arrays(canned_windows(start_s, shapes))


def prepare() -> None:
    """Prepare the real worker, and replace its extractor."""
    worker.prepare()
    patch.object(worker, "WindowExtractor", CannedExtractor).start()
    patch.object(worker, "write_arrays", write_arrays).start()


serve = worker.serve
