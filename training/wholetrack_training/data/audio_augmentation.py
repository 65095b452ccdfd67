"""Recordings heard otherwise, before any feature: the augmentation that Campana, Liturri and Padovano do on audio."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping

import librosa
import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]

_NOISE_DB = -20.0


def pieces(blocks: Iterable[Samples], length: int) -> Iterator[Samples]:
    """The same samples in pieces of ``length``, however they come; what is left in the end is shorter."""
    waiting: list[Samples] = []
    n_waiting = 0
    for block in blocks:
        waiting.append(block)
        n_waiting += len(block)
        if n_waiting >= length:
            joined = np.concatenate(waiting)
            whole = n_waiting - n_waiting % length
            yield from np.split(joined[:whole], range(length, whole, length))
            waiting, n_waiting = [joined[whole:]], n_waiting - whole
    if n_waiting:
        yield np.concatenate(waiting)


def a_semitone_up(samples: Samples, sample_rate: int) -> Samples:
    """The pitch shifted by librosa's phase vocoder."""
    return librosa.effects.pitch_shift(samples, sr=sample_rate, n_steps=1.0)


def with_white_noise(samples: Samples, sample_rate: int) -> Samples:
    """White noise 20 dB below the mean power, always the same for the same sound."""
    del sample_rate
    seed = int.from_bytes(hashlib.sha256(samples.tobytes()).digest()[:8])
    level = np.sqrt(np.square(samples, dtype=np.float64).mean() * 10 ** (_NOISE_DB / 10))
    noise = np.random.default_rng(seed).standard_normal(len(samples), dtype=np.float32)
    return samples + np.float32(level) * noise


VERSIONS: Mapping[str, Callable[[Samples, int], Samples]] = {
    "a semitone up": a_semitone_up,
    "with white noise": with_white_noise,
}
"""What can be done to a piece of mono samples ``[n]`` at a sample rate in Hz."""
