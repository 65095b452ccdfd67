"""Augmented copies of recordings, made from the audio before feature extraction (Campana, Liturri and Padovano)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import librosa
import numpy as np

from wholetrack_training.data.chunks import Samples

_NOISE_DB = -20.0


def shift_up_a_semitone(samples: Samples, sample_rate: int) -> Samples:
    """Shift the pitch with librosa's phase vocoder."""
    return librosa.effects.pitch_shift(samples, sr=sample_rate, n_steps=1.0)


def add_white_noise(samples: Samples, sample_rate: int) -> Samples:
    """Add white noise 20 dB below the mean power; the noise depends on the samples alone."""
    del sample_rate
    seed = int.from_bytes(hashlib.sha256(samples.tobytes()).digest()[:8])
    level = np.sqrt(np.square(samples, dtype=np.float64).mean() * 10 ** (_NOISE_DB / 10))
    noise = np.random.default_rng(seed).standard_normal(len(samples), dtype=np.float32)
    return samples + np.float32(level) * noise


# The names are part of recipes and of the cache's file names.
VERSIONS: Mapping[str, Callable[[Samples, int], Samples]] = {
    "a semitone up": shift_up_a_semitone,
    "with white noise": add_white_noise,
}
"""Augmentations of mono samples ``[n]`` at a sample rate in Hz, by name."""
