"""Turn the samples of a track into what the network and an observer get."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import Windows, joined_windows
from wholetrack.extraction.waveform import Waveform
from wholetrack.features.grid import WindowGrid
from wholetrack.features.inputs import InputFeatures


@dataclass(frozen=True, slots=True)
class ExtractedWindows:
    """What a block of samples adds to a track.

    Attributes:
        start_s: Start of each window that is complete, in seconds, ``[n_windows]``.
        silent: Whether each of them is silent, ``[n_windows]``.
        rows: The normalised inputs of the network for those with sound, or for all if silent ones were requested as
            well.
        peaks: Peaks of the waveform, ``[n_peaks]``.
    """

    start_s: NDArray[np.float64]
    silent: NDArray[np.bool_]
    rows: Windows
    peaks: NDArray[np.float32]

    @classmethod
    def none(cls, features: InputFeatures) -> ExtractedWindows:
        """Return no windows and no peaks."""
        return cls(
            start_s=np.zeros(0, dtype=np.float64),
            silent=np.zeros(0, dtype=np.bool_),
            rows=features.no_windows,
            peaks=np.zeros(0, dtype=np.float32),
        )


class WindowExtractor:
    """Extracts the windows of one track, as its samples arrive.

    Args:
        features: The features of the model.
        grid: Positions of the windows.
        peaks_per_s: Peaks of the waveform per second; 0 for none.
        keep_silent: Whether to return the inputs of silent windows as well.
        prompt: Whether windows are returned as soon as they are complete, which takes more time in all.
    """

    def __init__(
        self, features: InputFeatures, grid: WindowGrid, *, peaks_per_s: int, keep_silent: bool, prompt: bool = False
    ) -> None:
        self._features = features
        self._stream = features.stream(grid, prompt=prompt)
        self._waveform = Waveform(sample_rate=grid.frames.sample_rate, peaks_per_s=peaks_per_s)
        self._keep_silent = keep_silent

    def push(self, samples: NDArray[np.float32], *, is_last: bool) -> ExtractedWindows:
        """Add samples, ``[n_samples]``, and return the windows that are complete.

        Args:
            samples: The next samples of the track.
            is_last: Whether the track ends with them.
        """
        blocks = [self._stream.push(samples)]
        if is_last and self._stream.n_samples:
            blocks.append(self._stream.finish())
        rows = [self._features.normalised(block, None if self._keep_silent else ~block.silent) for block in blocks]
        return ExtractedWindows(
            start_s=np.concatenate([block.start_s for block in blocks]),
            silent=np.concatenate([block.silent for block in blocks]),
            rows=joined_windows(rows),
            peaks=self._waveform.push(samples),
        )
