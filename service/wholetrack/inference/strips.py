"""Feeds strips of windows to the graph that classifies them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import Rows, Strip, StripsSpec, Windows

# Frames between the windows of the self-test: windows that overlap, at even and odd frames.
_STEP = 7

SLICES = 4
"""Largest batch in relation to that of a network for single windows, which takes three times the memory."""


class StripFeeds:
    """Turns windows into the inputs of the graph.

    Args:
        spec: Names of the inputs.
        max_frames: Largest number of frames in a run, at least those of a window. It bounds the memory of a run.
    """

    def __init__(self, spec: StripsSpec, *, max_frames: int) -> None:
        self._spec = spec
        self._max_frames = max_frames

    def of(self, windows: Windows) -> Iterator[dict[str, NDArray[np.generic]]]:
        """Yield the inputs of each run."""
        strip = windows if isinstance(windows, Strip) else Strip.of_windows(windows)
        for piece in strip.pieces(self._max_frames):
            yield {self._spec.frames: piece.frames, self._spec.starts: piece.starts}

    def shapes(self, n_mels: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of each input without its first axis."""
        return {self._spec.frames: (n_mels,), self._spec.starts: ()}


def overlapping(windows: Rows) -> Strip:
    """Return a strip that overlaps itself, from windows of a single input."""
    strip = Strip.of_windows(windows)
    starts = np.arange(0, len(strip.frames) - strip.window_frames + 1, _STEP, dtype=np.int64)
    return Strip(strip.frames, starts, strip.window_frames)
