"""Windows that overlap, as the frames that they share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts.rows import Rows


@dataclass(frozen=True, slots=True)
class Strip:
    """Windows of a single input, as consecutive frames and the positions of the windows in them.

    It is cut and joined as :class:`Rows` are, by windows. Frames may be missing between windows that do not overlap,
    because nothing depends on frames that are in no window.

    Attributes:
        frames: ``[n_frames, n_mels]``.
        starts: First frame of each window in ascending order, ``[n_windows]``.
        window_frames: Frames per window.
    """

    frames: NDArray[np.float32]
    starts: NDArray[np.int64]
    window_frames: int

    @classmethod
    def empty(cls, *, window_frames: int, n_mels: int) -> Strip:
        """Return a strip without windows."""
        return cls(np.zeros((0, n_mels), dtype=np.float32), np.zeros(0, dtype=np.int64), window_frames)

    @classmethod
    def of_windows(cls, windows: Rows) -> Strip:
        """Return windows of a single input, one after the other."""
        (array,) = windows.arrays
        n_windows, window_frames, n_mels = array.shape
        return cls(array.reshape(-1, n_mels), window_frames * np.arange(n_windows, dtype=np.int64), window_frames)

    @classmethod
    def joined(cls, parts: Sequence[Strip]) -> Strip:
        """Return the windows of all parts, one part after the other; at least one part."""
        if len(parts) == 1:
            return parts[0]
        offsets = np.cumsum([0, *(len(part.frames) for part in parts[:-1])])
        starts = [part.starts + offset for part, offset in zip(parts, offsets, strict=True)]
        frames = np.concatenate([part.frames for part in parts])
        return cls(frames, np.concatenate(starts), parts[0].window_frames)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, windows: slice) -> Strip:
        return self._with(self.starts[windows])

    def selected(self, windows: NDArray[np.bool_]) -> Strip:
        """Return the windows that a mask selects, ``[n_windows]``."""
        return self._with(self.starts[windows])

    def windows(self) -> Rows:
        """Return every window by itself."""
        return Rows.of(self.frames[self.starts[:, None] + np.arange(self.window_frames)])

    @property
    def arrays(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The frames and the starts."""
        return self.frames, self.starts

    def pieces(self, max_frames: int) -> Iterator[Strip]:
        """Yield the windows in order, in strips of at most ``max_frames`` frames, which is at least one window."""
        first = 0
        while first < len(self):
            end = int(np.searchsorted(self.starts, self.starts[first] + max_frames - self.window_frames, side="right"))
            end = max(end, first + 1)
            yield self[first:end]
            first = end

    def _with(self, starts: NDArray[np.int64]) -> Strip:
        if not len(starts):
            return Strip(self.frames[:0], starts, self.window_frames)
        first = starts[0]
        return Strip(self.frames[first : starts[-1] + self.window_frames], starts - first, self.window_frames)


Windows = Rows | Strip
"""The windows of a network's inputs: each by itself, or as the frames that they share."""


def joined_windows(parts: Sequence[Windows]) -> Windows:
    """Return the windows of all parts, one part after the other; at least one part."""
    strips = [part for part in parts if isinstance(part, Strip)]
    if len(strips) == len(parts):
        return Strip.joined(strips)
    return Rows.joined([separate_windows(part) for part in parts])


def separate_windows(windows: Windows) -> Rows:
    """Return every window by itself."""
    return windows.windows() if isinstance(windows, Strip) else windows
