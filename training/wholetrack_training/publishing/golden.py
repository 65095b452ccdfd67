"""The golden input of a bundle: windows of a synthesised sound, which the service classifies to test a device."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import ModelCard, Rows, separate_windows
from wholetrack.features.grid import InputGrid, WindowGrid
from wholetrack.features.inputs import InputFeatures
from wholetrack.features.logmel import LogMel
from wholetrack.features.normalise import normalise
from wholetrack.features.windows import FrameBuffer, WindowCutter
from wholetrack_training.systems.recipe import Recipe

_SECONDS = 10.0


def golden_windows(recipe: Recipe) -> NDArray[np.float32]:
    """Return the normalised golden windows for the single input of a recipe, ``[n_windows, frames, n_mels]``."""
    sound = golden_sound(recipe.audio.sample_rate)
    features = LogMel(recipe.features, recipe.audio.sample_rate)
    stream = features.stream()
    windows = WindowGrid.of(recipe.windows, features.grid)
    grid = InputGrid.of(features.grid, windows, n_frames=recipe.windows.frames)
    cutter = WindowCutter(windows, [FrameBuffer(grid, n_mels=recipe.features.n_mels, silence=features.silence)])
    frames = np.concatenate((stream.push(sound), stream.finish()))
    (cut,) = cutter.finish([frames], n_samples=len(sound)).inputs
    return _in_half_precision(normalise(cut.windows().arrays[0], recipe.features.normalisation))


def golden_inputs(card: ModelCard) -> Rows:
    """Return the normalised golden windows for all inputs of a contract, ``[n_windows, frames, n_mels]`` for each."""
    features = InputFeatures(card)
    stream = features.stream(features.grid(None))
    blocks = (stream.push(golden_sound(card.audio.sample_rate)), stream.finish())
    windows = Rows.joined([separate_windows(features.normalised(block)) for block in blocks])
    return Rows(tuple(_in_half_precision(array) for array in windows.arrays))


def golden_sound(rate: int) -> NDArray[np.float32]:
    """Return an arpeggio with a beat, a sweep and noise, ``[n_samples]``.

    The sound is synthesised, so it is free of copyright and may be part of a bundle.
    """
    time = np.arange(int(_SECONDS * rate)) / rate
    notes = 220.0 * 2.0 ** (np.array([0, 4, 7, 12, 7, 4]) / 12.0)
    pitch = notes[(time * 4).astype(int) % len(notes)]
    arpeggio = sum(np.sin(2 * np.pi * np.cumsum(pitch) / rate * k) / k for k in range(1, 8))
    beat = np.exp(-((time * 2) % 1.0) * 30) * np.random.default_rng(0).standard_normal(len(time))
    sweep = np.sin(2 * np.pi * (100 * time + 250 * time**2))
    return np.asarray(0.1 * arpeggio + 0.2 * beat + 0.05 * sweep * (time > 5), dtype=np.float32)


def _in_half_precision(windows: NDArray[np.float32]) -> NDArray[np.float32]:
    # Half precision is sufficient and halves the file.
    return windows.astype(np.float16).astype(np.float32)
