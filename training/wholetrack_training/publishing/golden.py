"""The golden input of a bundle: windows of a synthesised sound, which the service classifies to test a device."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wholetrack.features.grid import InputGrid, WindowGrid
from wholetrack.features.logmel import LogMel
from wholetrack.features.normalise import normalise
from wholetrack.features.windows import FrameBuffer, WindowCutter
from wholetrack_training.systems.recipe import Recipe

_SECONDS = 10.0


def golden_sound(sample_rate: int) -> NDArray[np.float32]:
    """Return ten seconds of an arpeggio with a beat, a sweep and noise, ``[n_samples]``.

    The sound is synthesised, so it is free of copyright and may be part of the bundle.
    """
    time = np.arange(int(_SECONDS * sample_rate)) / sample_rate
    notes = 220.0 * 2.0 ** (np.array([0, 4, 7, 12, 7, 4]) / 12.0)
    pitch = notes[(time * 4).astype(int) % len(notes)]
    arpeggio = sum(np.sin(2 * np.pi * np.cumsum(pitch) / sample_rate * k) / k for k in range(1, 8))
    beat = np.exp(-((time * 2) % 1.0) * 30) * np.random.default_rng(0).standard_normal(len(time))
    sweep = np.sin(2 * np.pi * (100 * time + 250 * time**2))
    sound: NDArray[np.float32] = (0.1 * arpeggio + 0.2 * beat + 0.05 * sweep * (time > 5)).astype(np.float32)
    return sound


def golden_windows(recipe: Recipe) -> NDArray[np.float32]:
    """Return the normalised windows of the golden sound, ``[n_windows, frames, n_mels]``."""
    rate = recipe.audio.sample_rate
    sound = golden_sound(rate)
    features = LogMel(recipe.features, rate)
    stream = features.stream()
    windows = WindowGrid.of(recipe.windows, features.grid)
    grid = InputGrid.of(features.grid, windows, n_frames=recipe.windows.frames)
    cutter = WindowCutter(windows, [FrameBuffer(grid, n_mels=recipe.features.n_mels, silence=features.silence)])
    frames = np.concatenate((stream.push(sound), stream.finish()))
    (cut,) = cutter.finish([frames], n_samples=len(sound)).inputs
    # Half precision is sufficient here and halves the file.
    return normalise(cut, recipe.features.normalisation).astype(np.float16).astype(np.float32)
