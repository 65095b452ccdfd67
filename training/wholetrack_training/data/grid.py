"""The windows of a whole track of frames, where the service would cut them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import AudioSpec, FeatureSpec, WindowSpec
from wholetrack.features.grid import FrameGrid, WindowGrid


def window_starts(n_frames: int, features: FeatureSpec, windows: WindowSpec, audio: AudioSpec) -> list[int]:
    """First frames of the windows of a track of ``n_frames``; 0 alone where it is shorter than a window."""
    grid = WindowGrid.of(windows, FrameGrid.of(features, audio.sample_rate))
    n_samples = grid.frames.start(n_frames)
    starts = [start for start in grid.starts(n_samples) if start + windows.frames <= n_frames]
    return starts or [0]


def window_at(frames: NDArray[np.float32], start: int, n_frames: int) -> NDArray[np.float32]:
    """One window of a track, ``[n_frames, n_mels]``; a track that is too short is repeated."""
    if start + n_frames > len(frames):
        return np.resize(frames, (n_frames, frames.shape[1]))
    return frames[start : start + n_frames]
