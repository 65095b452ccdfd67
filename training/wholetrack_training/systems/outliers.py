"""Synthesised sounds that are not music, for training a network to be undecided about them.

This is outlier exposure (Hendrycks et al. 2019): the target of such a sound is the same share for every genre. None of
the sounds is a recording. Models are tested with other noises, tones and voices.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import AudioSpec, FeatureSpec
from wholetrack.features.logmel import LogMel
from wholetrack_training.errors import RecipeError
from wholetrack_training.systems.speech import FEATURES, speech_frames

Samples = NDArray[np.float64]
_Rng = np.random.Generator

_SECONDS = 6
_PER_KIND = 24
_SEED = 20_261_121


def _coloured_noise(rng: _Rng, time: Samples) -> Samples:
    """Noise whose spectrum falls by 0 to 9 dB per octave, steady or with a periodic change of level."""
    spectrum = np.fft.rfft(rng.standard_normal(len(time)))
    slope = rng.choice([0.0, rng.uniform(0, 1.5)])
    spectrum[1:] /= np.arange(1, len(spectrum)) ** slope
    swell = 1 + rng.choice([0, 0.9]) * np.sin(2 * np.pi * rng.uniform(0.1, 8) * time)
    return np.asarray(np.fft.irfft(spectrum, len(time)) * swell)


def _band_noise(rng: _Rng, time: Samples) -> Samples:
    """Noise between two frequencies, such as wind, hiss or a radio between stations."""
    spectrum = np.fft.rfft(rng.standard_normal(len(time)))
    frequencies = np.fft.rfftfreq(len(time), time[1])
    low, high = np.sort(np.exp(rng.uniform(np.log(50), np.log(10_000), 2)))
    spectrum[(frequencies < low) | (frequencies > 1.2 * high)] *= 1e-3
    return np.asarray(np.fft.irfft(spectrum, len(time)))


def _tones(rng: _Rng, time: Samples) -> Samples:
    """One to three sines of constant or gliding frequency."""
    sound = np.zeros_like(time)
    for _ in range(rng.integers(1, 4)):
        start, slide = np.exp(rng.uniform(np.log(60), np.log(8000))), rng.choice([0.0, rng.uniform(-0.3, 0.3)])
        sound += rng.uniform(0.2, 1) * np.sin(2 * np.pi * start * np.cumsum(2 ** (slide * time)) * time[1])
    return sound


def _hum(rng: _Rng, time: Samples) -> Samples:
    """Harmonics of one low frequency with a little noise, such as mains hum or a machine."""
    base = rng.choice([50.0, 60.0, rng.uniform(25, 180)])
    harmonics = np.arange(1, rng.integers(2, 40))
    levels = rng.uniform(0, 1, len(harmonics)) / harmonics ** rng.uniform(0.3, 1.5)
    sound = (levels[:, None] * np.sin(2 * np.pi * base * harmonics[:, None] * time)).sum(axis=0)
    return np.asarray(sound + rng.choice([1e-4, 1e-2]) * rng.standard_normal(len(time)))


def _clicks(rng: _Rng, time: Samples) -> Samples:
    """Clicks, drips and ticks at regular or irregular intervals."""
    impulses, period = np.zeros_like(time), rng.uniform(0.05, 1.0)
    n_clicks = int(time[-1] / period) + 1
    times = period * (np.arange(n_clicks) + rng.choice([0, 0.3]) * rng.standard_normal(n_clicks))
    impulses[(times / time[1]).astype(np.intp) % len(time)] = 1
    ring, decay = np.exp(rng.uniform(np.log(200), np.log(6000))), rng.uniform(30, 400)
    click = np.exp(-decay * time) * np.sin(2 * np.pi * ring * time)
    sound = np.fft.irfft(np.fft.rfft(impulses) * np.fft.rfft(click), len(time))
    return np.asarray(sound + 1e-4 * rng.standard_normal(len(time)))


KINDS: dict[str, Callable[[_Rng, Samples], Samples]] = {
    "coloured noise": _coloured_noise,
    "band of noise": _band_noise,
    "tones": _tones,
    "hum": _hum,
    "clicks": _clicks,
}


def outlier(kind: str, rng: _Rng, *, sample_rate: int, seconds: float) -> NDArray[np.float32]:
    """Synthesise one sound.

    Args:
        kind: A key of :data:`KINDS`.
        rng: Source of randomness.
        sample_rate: Sample rate in Hz.
        seconds: Length of the sound.

    Returns:
        Samples with a peak of half of full scale, ``[n_samples]``.
    """
    time = np.arange(int(seconds * sample_rate)) / sample_rate
    sound = KINDS[kind](rng, time)
    scaled: NDArray[np.float32] = (0.5 * sound / np.abs(sound).max()).astype(np.float32)
    return scaled


def outlier_frames(audio: AudioSpec, features: FeatureSpec, *, speech: bool = False) -> tuple[NDArray[np.float32], ...]:
    """Return log-mel frames of 24 sounds of each kind and of voices, each ``[n_frames, n_mels]``, always the same.

    Args:
        audio: Sample rate, from the recipe.
        features: Feature parameters, from the recipe.
        speech: Whether to include the 240 voices of :mod:`wholetrack_training.systems.speech`.

    Raises:
        RecipeError: If speech is requested with features other than the stored ones.
    """
    if speech and features.model_copy(update={"normalisation": FEATURES.normalisation}) != FEATURES:
        raise RecipeError("speech is only available in the features of gtzan-mel.npz: set speech=false for others")
    return (*_synthetic_frames(audio, features), *(speech_frames() if speech else ()))


@cache
def _synthetic_frames(audio: AudioSpec, features: FeatureSpec) -> tuple[NDArray[np.float32], ...]:
    rng = np.random.default_rng(_SEED)
    log_mel = LogMel(features, audio.sample_rate)
    found = []
    for kind in KINDS:
        for _ in range(_PER_KIND):
            stream = log_mel.stream()
            sound = outlier(kind, rng, sample_rate=audio.sample_rate, seconds=_SECONDS)
            found.append(np.concatenate((stream.push(sound), stream.finish())))
    return tuple(found)
