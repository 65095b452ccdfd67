"""Recordings heard otherwise, before any feature: the augmentation that Campana, Liturri and Padovano do on audio."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import librosa
import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]

_NOISE_DB = -20.0
# A phase vocoder holds the whole spectrum of what it is given.
_PIECE_S = 60.0


def a_semitone_up(samples: Samples, sample_rate: int) -> Samples:
    """The pitch shifted by librosa's phase vocoder, a minute at a time."""
    pieces = np.split(samples, np.arange(0, len(samples), int(_PIECE_S * sample_rate))[1:])
    return np.concatenate([librosa.effects.pitch_shift(piece, sr=sample_rate, n_steps=1.0) for piece in pieces])


def with_white_noise(samples: Samples, sample_rate: int) -> Samples:
    """White noise 20 dB below the recording's mean power, always the same for the same sound."""
    del sample_rate
    seed = int.from_bytes(hashlib.sha256(samples.tobytes()).digest()[:8])
    level = np.sqrt(np.square(samples, dtype=np.float64).mean() * 10 ** (_NOISE_DB / 10))
    noise = np.random.default_rng(seed).standard_normal(len(samples), dtype=np.float32)
    return samples + np.float32(level) * noise


VERSIONS: Mapping[str, Callable[[Samples, int], Samples]] = {
    "a semitone up": a_semitone_up,
    "with white noise": with_white_noise,
}
"""What can be done to mono samples ``[n]`` at a sample rate in Hz."""
