"""Sounds that are no music, from which a network learns to say that it does not know: arithmetic, and speech.

Outlier exposure (Hendrycks et al. 2019): they are trained on with every genre equally likely. None of them is a
recording; the noises, tones and voices by which a model is judged afterwards are others.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from service.contracts import AudioSpec, FeatureSpec
from service.features.logmel import LogMel
from training.speech import FEATURES, speech_frames

Samples = NDArray[np.float64]
_Rng = np.random.Generator

_SECONDS = 6
_EACH = 24
_VOICES = 96
_SEED = 20_261_121


def _coloured_noise(rng: _Rng, time: Samples) -> Samples:
    """Noise whose spectrum falls by 0 to 9 dB an octave, steady or swelling."""
    spectrum = np.fft.rfft(rng.standard_normal(len(time)))
    slope = rng.choice([0.0, rng.uniform(0, 1.5)])
    spectrum[1:] /= np.arange(1, len(spectrum)) ** slope
    swell = 1 + rng.choice([0, 0.9]) * np.sin(2 * np.pi * rng.uniform(0.1, 8) * time)
    return np.asarray(np.fft.irfft(spectrum, len(time)) * swell)


def _band_noise(rng: _Rng, time: Samples) -> Samples:
    """Noise between two frequencies: wind, hiss, a radio between stations."""
    spectrum = np.fft.rfft(rng.standard_normal(len(time)))
    frequencies = np.fft.rfftfreq(len(time), time[1])
    low, high = np.sort(np.exp(rng.uniform(np.log(50), np.log(10_000), 2)))
    spectrum[(frequencies < low) | (frequencies > 1.2 * high)] *= 1e-3
    return np.asarray(np.fft.irfft(spectrum, len(time)))


def _tones(rng: _Rng, time: Samples) -> Samples:
    """One to three steady or sliding sines."""
    sound = np.zeros_like(time)
    for _ in range(rng.integers(1, 4)):
        start, slide = np.exp(rng.uniform(np.log(60), np.log(8000))), rng.choice([0.0, rng.uniform(-0.3, 0.3)])
        sound += rng.uniform(0.2, 1) * np.sin(2 * np.pi * start * np.cumsum(2 ** (slide * time)) * time[1])
    return sound


def _hum(rng: _Rng, time: Samples) -> Samples:
    """The mains and machines: harmonics of one low frequency with a little noise."""
    base = rng.choice([50.0, 60.0, rng.uniform(25, 180)])
    harmonics = np.arange(1, rng.integers(2, 40))
    levels = rng.uniform(0, 1, len(harmonics)) / harmonics ** rng.uniform(0.3, 1.5)
    sound = (levels[:, None] * np.sin(2 * np.pi * base * harmonics[:, None] * time)).sum(axis=0)
    return np.asarray(sound + rng.choice([1e-4, 1e-2]) * rng.standard_normal(len(time)))


def _clicks(rng: _Rng, time: Samples) -> Samples:
    """Clicks, drops and ticks at regular or irregular times."""
    impulses, period = np.zeros_like(time), rng.uniform(0.05, 1.0)
    n_clicks = int(time[-1] / period) + 1
    moments = period * (np.arange(n_clicks) + rng.choice([0, 0.3]) * rng.standard_normal(n_clicks))
    impulses[(moments / time[1]).astype(np.intp) % len(time)] = 1
    ring, decay = np.exp(rng.uniform(np.log(200), np.log(6000))), rng.uniform(30, 400)
    click = np.exp(-decay * time) * np.sin(2 * np.pi * ring * time)
    sound = np.fft.irfft(np.fft.rfft(impulses) * np.fft.rfft(click), len(time))
    return np.asarray(sound + 1e-4 * rng.standard_normal(len(time)))


# First three formants of ten vowels of American English, Hz (Peterson and Barney 1952, men).
_VOWELS = np.array(
    [
        (270, 2290, 3010),
        (390, 1990, 2550),
        (530, 1840, 2480),
        (660, 1720, 2410),
        (730, 1090, 2440),
        (570, 840, 2410),
        (440, 1020, 2240),
        (300, 870, 2240),
        (640, 1190, 2390),
        (490, 1350, 1690),
    ],
    dtype=np.float64,
)
_UPPER_FORMANTS = (3500.0, 4500.0)
_BANDWIDTHS = np.array([60.0, 90.0, 150.0, 200.0, 250.0])
_CONTROL_S = 0.005


def _voice(rng: _Rng, time: Samples) -> Samples:
    """Speech without words: phrases of vowels that glide into one another, nasals, hisses and stops, and pauses."""
    n_controls = int(time[-1] / _CONTROL_S) + 2
    voiced, hiss = np.zeros(n_controls), np.zeros(n_controls)
    formants, pitch = np.tile(_VOWELS[0], (n_controls, 1)), np.zeros(n_controls)
    mean_pitch, liveliness = np.exp(rng.uniform(np.log(80), np.log(450))), rng.uniform(0.02, 0.25)
    pace, at = rng.uniform(0.35, 1.3), 0
    while at < n_controls:
        first = at
        for _ in range(rng.integers(4, 30)):
            at = _phone(rng, formants, voiced, hiss, at=at, pace=pace)
        phrase = np.arange(min(at, n_controls) - first)
        accents = np.interp(phrase, np.linspace(0, len(phrase), 6), rng.normal(0, liveliness, 6))
        pitch[first : first + len(phrase)] = mean_pitch * 2 ** (accents - 0.3 * phrase / max(len(phrase), 1))
        at += int(rng.uniform(0.1, 0.6) / _CONTROL_S)
    return _spoken(rng, time, formants * rng.uniform(0.9, 1.4), pitch, voiced, hiss)


def _phone(rng: _Rng, formants: Samples, voiced: Samples, hiss: Samples, *, at: int, pace: float) -> int:
    """Write one sound of speech into the controls from one moment on; returns where it ends."""
    kind = rng.choice(["vowel", "nasal", "hiss", "stop"], p=[0.5, 0.15, 0.2, 0.15])
    seconds = {"vowel": (0.06, 0.2), "nasal": (0.04, 0.09), "hiss": (0.05, 0.14), "stop": (0.04, 0.09)}[kind]
    end = at + max(int(pace * rng.uniform(*seconds) / _CONTROL_S), 4)
    formants[at:] = _VOWELS[rng.integers(len(_VOWELS))] * rng.uniform(0.93, 1.07, 3)
    match kind:
        case "vowel":
            voiced[at:end] = rng.uniform(0.6, 1.0)
        case "nasal":
            voiced[at:end] = rng.uniform(0.2, 0.4)
            formants[at:end] = (250, 1200, 2200)
        case "hiss":
            hiss[at:end] = rng.uniform(0.05, 0.4)
            voiced[at:end] = rng.choice([0.0, 0.2])
        case "stop":
            hiss[end - 3 : end] = rng.uniform(0.1, 0.5)
    return end


def _spoken(rng: _Rng, time: Samples, formants: Samples, pitch: Samples, voiced: Samples, hiss: Samples) -> Samples:
    """The controls as sound: harmonics weighed by the resonances (Klatt 1980), and noise between two frequencies."""
    at_controls = np.arange(len(pitch)) * _CONTROL_S

    def per_sample(control: Samples) -> Samples:
        return np.asarray(np.interp(time, at_controls, uniform_filter1d(control, 5)))

    upper = np.broadcast_to(_UPPER_FORMANTS, (len(pitch), len(_UPPER_FORMANTS)))
    resonances = np.concatenate((uniform_filter1d(formants, 9, axis=0), upper), axis=1)
    steady = np.where(pitch > 0, pitch, pitch.max())
    phase = 2 * np.pi * np.cumsum(per_sample(steady)) * time[1]
    tilt, sound = rng.uniform(0.2, 1.5), np.zeros_like(time)
    for harmonic in range(1, int(min(70, 9000 / steady.mean()))):
        frequency = harmonic * steady[:, None]
        relative = frequency / resonances
        gain = (1 / np.hypot(1 - relative**2, relative * _BANDWIDTHS / resonances)).prod(axis=1)
        sound += per_sample(voiced * gain / harmonic**tilt) * np.sin(harmonic * phase)
    low = rng.uniform(1500, 4500)
    noise = np.fft.rfft(rng.standard_normal(len(time)))
    frequencies = np.fft.rfftfreq(len(time), time[1])
    noise[(frequencies < low) | (frequencies > low + rng.uniform(2000, 8000))] *= 0.1
    breath = np.fft.irfft(noise, len(time))
    sound = sound / np.abs(sound).max() + per_sample(hiss) * breath / np.abs(breath).max()
    return np.asarray(sound + 10 ** rng.uniform(-5, -2.5) * rng.standard_normal(len(time)))


KINDS: dict[str, Callable[[_Rng, Samples], Samples]] = {
    "coloured noise": _coloured_noise,
    "band of noise": _band_noise,
    "tones": _tones,
    "hum": _hum,
    "clicks": _clicks,
    "voice": _voice,
}


def outlier(kind: str, rng: _Rng, *, sample_rate: int, seconds: float) -> NDArray[np.float32]:
    """One such sound, peak at half of full scale."""
    time = np.arange(int(seconds * sample_rate)) / sample_rate
    sound = KINDS[kind](rng, time)
    scaled: NDArray[np.float32] = (0.5 * sound / np.abs(sound).max()).astype(np.float32)
    return scaled


@cache
def outlier_frames(audio: AudioSpec, features: FeatureSpec, *, speech: bool = False) -> tuple[NDArray[np.float32], ...]:
    """Log-mel frames of 24 sounds of each kind and of voices, always the same, each ``[n_frames, n_mels]``.

    Args:
        audio: of the recipe.
        features: of the recipe.
        speech: with the 240 voices of :mod:`training.speech`, in place of 96 made of arithmetic.

    Raises:
        ValueError: if speech is asked for in other features than those in which it is kept.
    """
    if speech and features.model_copy(update={"normalisation": FEATURES.normalisation}) != FEATURES:
        raise ValueError("speech is kept in the features of gtzan-mel.npz only: set speech=false for others")
    rng = np.random.default_rng(_SEED)
    log_mel = LogMel(features, audio.sample_rate)
    counts = dict.fromkeys(KINDS, _EACH) | {"voice": 0 if speech else _VOICES}
    found = []
    for kind, n_sounds in counts.items():
        for _ in range(n_sounds):
            stream = log_mel.stream()
            sound = outlier(kind, rng, sample_rate=audio.sample_rate, seconds=_SECONDS)
            found.append(np.concatenate((stream.push(sound), stream.finish())))
    return (*found, *(speech_frames() if speech else ()))
