"""All inputs of a network, computed from one stream of samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import FeatureContract, ModelCard, Rows, Strip, Windows
from wholetrack.features.grid import InputGrid, WindowGrid
from wholetrack.features.logmel import LogMel
from wholetrack.features.normalise import normalise
from wholetrack.features.windows import FrameBuffer, WindowBlock, WindowCutter


class InputFeatures:
    """The features of all inputs of one bundle. Stateless, and shared by all tracks.

    Args:
        card: Contents of ``model.json``, or the part that the features depend on.

    Attributes:
        in_strips: Whether the network gets windows as the frames that they share.

    Raises:
        ValueError: If the features are impossible, or frames do not fit into the windows.
    """

    def __init__(self, card: ModelCard | FeatureContract) -> None:
        contract = card.feature_contract if isinstance(card, ModelCard) else card
        self._card = contract
        self.in_strips = contract.in_strips
        self._log_mels = [_log_mel(contract, i) for i in range(len(contract.inputs))]
        rates = [log_mel.grid.rate for log_mel in self._log_mels]
        self._reference = rates.index(min(rates))
        self._input_grids = self._grids_of(self.grid(None))

    def grid(self, hop_s: float | None) -> WindowGrid:
        """Return the grid of windows for a hop in seconds; None for the bundle's default.

        Raises:
            ValueError: If the bundle does not support that hop.
        """
        entry, log_mel = self._card.inputs[self._reference], self._log_mels[self._reference]
        return WindowGrid.of(self._card.windows_of(entry), log_mel.grid, hop_s)

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Frames per window and mel bands of each input."""
        return tuple((entry.frames, entry.features.n_mels) for entry in self._card.inputs)

    def stream(self, grid: WindowGrid, *, prompt: bool = False) -> WindowStream:
        """Return a new stream of windows for one track.

        Args:
            grid: Positions of the windows.
            prompt: Whether windows are returned as soon as they are complete, which takes more time in all.
        """
        return WindowStream(self._log_mels, self._input_grids, grid, prompt=prompt)

    @property
    def no_windows(self) -> Windows:
        """Return no windows."""
        if not self.in_strips:
            return Rows.zeros(0, self.shapes)
        ((window_frames, n_mels),) = self.shapes
        return Strip.empty(window_frames=window_frames, n_mels=n_mels)

    def normalised(self, block: WindowBlock, chosen: NDArray[np.bool_] | None = None) -> Windows:
        """Return the normalised inputs of some windows of a block; of all by default.

        Args:
            block: The windows.
            chosen: Which of them, ``[n_windows]``; None for all.
        """
        specs = [entry.features.normalisation for entry in self._card.inputs]
        strips = [strip if chosen is None else strip.selected(chosen) for strip in block.inputs]
        if self.in_strips:
            # Such a normalisation does not depend on the window.
            (strip,), (spec,) = strips, specs
            return Strip(normalise(strip.frames[None], spec)[0], strip.starts, strip.window_frames)
        windows = (strip.windows().arrays[0] for strip in strips)
        return Rows(tuple(normalise(array, spec) for array, spec in zip(windows, specs, strict=True)))

    def _grids_of(self, windows: WindowGrid) -> list[InputGrid]:
        grids = []
        for entry, log_mel in zip(self._card.inputs, self._log_mels, strict=True):
            try:
                grids.append(InputGrid.of(log_mel.grid, windows, n_frames=entry.frames))
            except ValueError as error:
                raise ValueError(f"input {entry.name!r}: {error}") from error
        return grids


class WindowStream:
    """Turns the samples of one track into windows, as they arrive."""

    def __init__(self, log_mels: list[LogMel], grids: list[InputGrid], windows: WindowGrid, *, prompt: bool) -> None:
        self._frames = [log_mel.stream(prompt=prompt) for log_mel in log_mels]
        buffers = [
            FrameBuffer(grid, n_mels=log_mel.spec.n_mels, silence=log_mel.silence)
            for log_mel, grid in zip(log_mels, grids, strict=True)
        ]
        self._cutter = WindowCutter(windows, buffers)

    @property
    def n_samples(self) -> int:
        """Samples received so far."""
        return self._frames[0].n_samples

    def push(self, samples: NDArray[np.float32]) -> WindowBlock:
        """Add samples, ``[n_samples]``, and return the windows that are complete."""
        frames = [stream.push(samples) for stream in self._frames]
        return self._cutter.push(frames, n_samples=self.n_samples)

    def finish(self) -> WindowBlock:
        """Return the remaining windows. At least one sample must have been added."""
        frames = [stream.finish() for stream in self._frames]
        return self._cutter.finish(frames, n_samples=self.n_samples)


def _log_mel(card: FeatureContract, index: int) -> LogMel:
    entry = card.inputs[index]
    try:
        return LogMel(entry.features, card.audio.sample_rate)
    except ValueError as error:
        raise ValueError(f"input {entry.name!r}: {error}") from error
