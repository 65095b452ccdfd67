"""The windows of a whole track, on the same grid that the service uses."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import AudioSpec, FeatureSpec, WindowSpec
from wholetrack.features.grid import FrameGrid, WindowGrid
from wholetrack.features.normalise import normalise
from wholetrack_training.data.tracks import Track


def window_starts(n_frames: int, features: FeatureSpec, windows: WindowSpec, audio: AudioSpec) -> list[int]:
    """Return the first frame of every window of a track.

    Args:
        n_frames: Length of the track in frames.
        features: Positions of the frames.
        windows: Length and hop of the windows.
        audio: Sample rate of the frames.

    Returns:
        Frame indices in ascending order; ``[0]`` if the track is shorter than a window.
    """
    grid = WindowGrid.of(windows, FrameGrid.of(features, audio.sample_rate))
    n_samples = grid.frames.start(n_frames)
    starts = [start for start in grid.starts(n_samples) if start + windows.frames <= n_frames]
    return starts or [0]


def window_at(frames: NDArray[np.float32], start: int, n_frames: int) -> NDArray[np.float32]:
    """Return one window of a track, ``[n_frames, n_mels]``. A track that is too short is repeated."""
    if start + n_frames > len(frames):
        return np.resize(frames, (n_frames, frames.shape[1]))
    return frames[start : start + n_frames]


def cut_windows(track: Track, features: FeatureSpec, windows: WindowSpec, audio: AudioSpec) -> NDArray[np.float32]:
    """Return all windows of a track, normalised, ``[n_windows, frames, n_mels]``."""
    starts = window_starts(len(track.frames), features, windows, audio)
    cut = np.stack([window_at(track.frames, start, windows.frames) for start in starts])
    return normalise(cut, features.normalisation)
