"""Divides streams of frames into windows. Each window is a slice of the spectrograms of the whole track."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import Strip
from wholetrack.features.grid import InputGrid, WindowGrid

Frames = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class WindowBlock:
    """Consecutive windows of one track.

    Attributes:
        start_s: Start of each window in seconds, ``[n_windows]``.
        inputs: The windows of each input, with log-mel values before normalisation.
        silent: Whether each window is silent in every input, ``[n_windows]``.
    """

    start_s: NDArray[np.float64]
    inputs: tuple[Strip, ...]
    silent: NDArray[np.bool_]


class FrameBuffer:
    """The frames of one input that later windows need."""

    def __init__(self, grid: InputGrid, *, n_mels: int, silence: float) -> None:
        """Start at the beginning of a track.

        Args:
            grid: Positions of the frames.
            n_mels: Mel bands per frame.
            silence: A window whose log-mel values never exceed this is silent.
        """
        self._grid = grid
        self._silence = silence
        self._kept: Frames = np.zeros((0, n_mels), dtype=np.float32)
        self._kept_from = 0

    def add(self, frames: Frames) -> None:
        """Append the next frames, ``[n_frames, n_mels]``."""
        self._kept = np.concatenate((self._kept, frames))

    def repeat(self) -> None:
        """Repeat the frames of a track that is shorter than a window, until they fill one."""
        # np.resize repeats the rows, starting with the first.
        self._kept = np.resize(self._kept, (self._grid.n_frames, self._kept.shape[1]))

    def has_window(self, start: int) -> bool:
        """Return whether all frames of the window at a reference frame have been added."""
        return self._grid.start(start) + self._grid.n_frames <= self._kept_from + len(self._kept)

    def windows(self, starts: Sequence[int]) -> tuple[Strip, NDArray[np.bool_]]:
        """Return the windows at these reference frames, and whether each is silent."""
        n_frames = self._grid.n_frames
        first = np.array([self._grid.start(start) - self._kept_from for start in starts], dtype=np.int64)
        strip = Strip(self._kept, first, n_frames)[:]
        loudest = strip.frames.max(axis=1, initial=-np.inf)[strip.starts[:, None] + np.arange(n_frames)]
        return strip, loudest.max(axis=1, initial=-np.inf) <= self._silence

    def drop_before(self, start: int) -> None:
        """Drop the frames before the window at a reference frame."""
        unused = self._grid.start(start) - self._kept_from
        if unused > 0:
            self._kept = self._kept[unused:].copy()
            self._kept_from += unused


class WindowCutter:
    """Turns the frames of one track into windows, and keeps only the frames that later windows need."""

    def __init__(self, grid: WindowGrid, buffers: Sequence[FrameBuffer]) -> None:
        """Start at the beginning of a track.

        Args:
            grid: Positions of the windows.
            buffers: Empty, one for each input.
        """
        self._grid = grid
        self._buffers = buffers
        self._next_window = 0

    def push(self, frames: Sequence[Frames], *, n_samples: int) -> WindowBlock:
        """Add frames and return the windows that are complete.

        Args:
            frames: The next frames of each input, ``[n_frames, n_mels]``.
            n_samples: Samples of the track received so far. A window is complete only if it ends within them.
        """
        self._add(frames)
        starts = []
        first = self._grid.start(self._next_window)
        while self._grid.fits(first, n_samples) and all(buffer.has_window(first) for buffer in self._buffers):
            starts.append(first)
            self._next_window += 1
            first = self._grid.start(self._next_window)
        block = self._cut(starts)
        if self._next_window:
            # The last window of the track may start anywhere after the last regular one.
            needed = self._grid.start(self._next_window - 1)
            for buffer in self._buffers:
                buffer.drop_before(needed)
        return block

    def finish(self, frames: Sequence[Frames], *, n_samples: int) -> WindowBlock:
        """Add the last frames and return the remaining windows, by the rules for the last window and for short tracks.

        Args:
            frames: The last frames of each input, ``[n_frames, n_mels]``.
            n_samples: Samples of the whole track, at least 1.
        """
        self._add(frames)
        if n_samples < self._grid.window_samples:
            for buffer in self._buffers:
                buffer.repeat()
        return self._cut(list(self._grid.starts(n_samples, from_window=self._next_window)))

    def _add(self, frames: Sequence[Frames]) -> None:
        for buffer, new in zip(self._buffers, frames, strict=True):
            buffer.add(new)

    def _cut(self, starts: list[int]) -> WindowBlock:
        windows, silent = zip(*(buffer.windows(starts) for buffer in self._buffers), strict=True)
        return WindowBlock(
            start_s=np.array([self._grid.frames.time_s(frame) for frame in starts], dtype=np.float64),
            inputs=windows,
            silent=np.logical_and.reduce(silent),
        )
