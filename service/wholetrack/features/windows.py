"""Divides a stream of frames into windows. Each window is a slice of the spectrogram of the whole track."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wholetrack.features.grid import WindowGrid


@dataclass(frozen=True, slots=True)
class WindowBlock:
    """Consecutive windows of one track.

    Attributes:
        start_s: Start of each window in seconds, ``[n_windows]``.
        frames: Log-mel values before normalisation, ``[n_windows, frames, n_mels]``.
        silent: Whether each window is silent, ``[n_windows]``.
    """

    start_s: NDArray[np.float64]
    frames: NDArray[np.float32]
    silent: NDArray[np.bool_]


class WindowCutter:
    """Turns the frames of one track into windows, and keeps only the frames that later windows need."""

    def __init__(self, grid: WindowGrid, *, n_mels: int, silence: float) -> None:
        """Start at the beginning of a track.

        Args:
            grid: Positions of the windows.
            n_mels: Mel bands per frame.
            silence: A window whose log-mel values never exceed this is silent.
        """
        self._grid = grid
        self._silence = silence
        self._kept: NDArray[np.float32] = np.zeros((0, n_mels), dtype=np.float32)
        self._kept_from = 0
        self._next_window = 0

    def push(self, frames: NDArray[np.float32], *, n_samples: int) -> WindowBlock:
        """Add frames and return the windows that are complete.

        Args:
            frames: The next frames, ``[n_frames, n_mels]``.
            n_samples: Samples of the track received so far. A window is complete only if it ends within them.
        """
        self._kept = np.concatenate((self._kept, frames))
        have = self._kept_from + len(self._kept)
        starts = []
        first = self._grid.start(self._next_window)
        while first + self._grid.spec.frames <= have and self._grid.fits(first, n_samples):
            starts.append(first)
            self._next_window += 1
            first = self._grid.start(self._next_window)
        block = self._cut(starts)
        if self._next_window:
            # The last window of the track may start anywhere after the last regular one.
            self._drop_before(self._grid.start(self._next_window - 1))
        return block

    def finish(self, frames: NDArray[np.float32], *, n_samples: int) -> WindowBlock:
        """Add the last frames and return the remaining windows, by the rules for the last window and for short tracks.

        Args:
            frames: The last frames of the track, ``[n_frames, n_mels]``.
            n_samples: Samples of the whole track, at least 1.
        """
        self._kept = np.concatenate((self._kept, frames))
        if n_samples < self._grid.window_samples:
            # The rule "repeat" for short tracks: np.resize repeats the rows, starting with the first.
            self._kept = np.resize(self._kept, (self._grid.spec.frames, self._kept.shape[1]))
        return self._cut(list(self._grid.starts(n_samples, from_window=self._next_window)))

    def _cut(self, starts: list[int]) -> WindowBlock:
        rows = np.array(starts, dtype=np.intp)[:, None] - self._kept_from + np.arange(self._grid.spec.frames)
        windows = self._kept[rows]
        return WindowBlock(
            start_s=np.array([self._grid.frames.time_s(frame) for frame in starts], dtype=np.float64),
            frames=windows,
            silent=windows.max(axis=(1, 2), initial=-np.inf) <= self._silence,
        )

    def _drop_before(self, frame: int) -> None:
        unused = frame - self._kept_from
        if unused > 0:
            self._kept = self._kept[unused:].copy()
            self._kept_from += unused
