"""Random changes of a window that do not change its genre.

Tempo, pitch, equalisation and degradation are applied to values in dB, before normalisation; style mixing, masks and
mixup after it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import FeatureSpec
from wholetrack.features.mel import mel_edges


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How strongly windows are changed; zero switches a change off.

    Attributes:
        stretch: A window is cut from up to this fraction more or fewer frames and resampled, which changes its tempo.
        shift_bands: The spectrum moves by up to this many mel bands, which changes pitch and bandwidth.
        equaliser_db: Standard deviation of a smooth random curve over the bands, which imitates recording and
            mastering.
        mask_bands: Largest number of adjacent bands that are set to the floor.
        mask_frames: Largest number of adjacent frames that are set to the floor.
        mixup: Parameter of the beta distribution from which the share of a second window is drawn (Zhang 2018).
        style: Share of the windows that take on some of the level and contrast of each band of another window: the
            sound of another recording with the genre unchanged (Freq-MixStyle, Schmid et al. 2022).
        degradation: Probability of each of dynamic compression, lost treble, lost bass and background noise.
    """

    stretch: float = 0.15
    shift_bands: int = 4
    equaliser_db: float = 4.0
    mask_bands: int = 16
    mask_frames: int = 6
    mixup: float = 0.4
    style: float = 0.0
    degradation: float = 0.0


NO_AUGMENTATION = Augmentation(0.0, 0, 0.0, 0, 0, 0.0, 0.0, 0.0)

_EQUALISER_KNOTS = 6
_COMPRESSED_DB, _MAX_RATIO = 30.0, 8.0
# Filters and codecs remove up to this share of the bands at either end of the spectrum, and attenuate them this much.
_LOST_TREBLE, _LOST_BASS, _LOSS_DB = 0.5, 0.1, 60.0
_NOISE_DB = (-50.0, -15.0)
# Parameter of the beta distribution of the style's share; the literature uses 0.3 to 0.6.
_STYLE_BETA = 0.4


def random_window(
    track: NDArray[np.float32], n_frames: int, augmentation: Augmentation, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Cut a window from a random position of a track and change its tempo by resampling the time axis.

    Args:
        track: Log-mel values in dB, ``[track_frames, n_mels]``.
        n_frames: Length of the window.
        augmentation: Its ``stretch`` limits the change of tempo.
        rng: Source of randomness.

    Returns:
        Log-mel values in dB, ``[n_frames, n_mels]``.
    """
    last = len(track) - 1
    factor = 1.0 + rng.uniform(-augmentation.stretch, augmentation.stretch)
    span = min((n_frames - 1) * factor, last)
    start = rng.uniform(0, last - span)
    at = np.linspace(start, start + span, n_frames)
    before = np.minimum(at.astype(np.intp), last - 1) if last > 0 else np.zeros(n_frames, dtype=np.intp)
    weight = (at - before)[:, None].astype(np.float32)
    after = np.minimum(before + 1, last)
    window: NDArray[np.float32] = track[before] * (1 - weight) + track[after] * weight
    return window


def random_eq(
    windows: NDArray[np.float32], augmentation: Augmentation, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Shift the spectrum of each window by a random number of bands and add a random equaliser curve.

    Args:
        windows: Log-mel values in dB, ``[n_windows, n_frames, n_mels]``.
        augmentation: Its ``shift_bands`` and ``equaliser_db`` limit the changes.
        rng: Source of randomness.

    Returns:
        Values in dB, of the same shape.
    """
    n_windows, _, n_mels = windows.shape
    shift = rng.integers(-augmentation.shift_bands, augmentation.shift_bands + 1, (n_windows, 1))
    bands = np.clip(np.arange(n_mels)[None] - shift, 0, n_mels - 1)
    shifted = np.take_along_axis(windows, bands[:, None, :], axis=2)
    knots = rng.normal(0.0, augmentation.equaliser_db, (n_windows, _EQUALISER_KNOTS))
    at = np.linspace(0, _EQUALISER_KNOTS - 1, n_mels)
    left = np.minimum(at.astype(np.intp), _EQUALISER_KNOTS - 2)
    # A raised cosine between the knots is smooth, and flat at each knot.
    blend = 0.5 - 0.5 * np.cos(np.pi * (at - left))
    curve = knots[:, left] * (1 - blend) + knots[:, left + 1] * blend
    return np.asarray(shifted + curve[:, None, :].astype(np.float32))


def degrade(windows: NDArray[np.float32], augmentation: Augmentation, rng: np.random.Generator) -> NDArray[np.float32]:
    """Degrade some of the windows as transmission, codecs and mastering do: compression, lost bands, noise.

    Args:
        windows: Log-mel values in dB, ``[n_windows, n_frames, n_mels]``.
        augmentation: Its ``degradation`` is the probability of each of the four changes.
        rng: Source of randomness.

    Returns:
        Values in dB, of the same shape.
    """
    if not augmentation.degradation:
        return windows
    n_windows, _, n_mels = windows.shape
    compressed, treble, bass, noisy = rng.random((4, n_windows, 1, 1)) < augmentation.degradation
    # A compressor attenuates a frame in proportion to how far it exceeds the threshold.
    level = windows.max(axis=2, keepdims=True)
    excess = np.maximum(level - level.max(axis=1, keepdims=True) + _COMPRESSED_DB, 0.0)
    reduction = compressed * excess * (1 - 1 / rng.uniform(1.0, _MAX_RATIO, (n_windows, 1, 1)))
    band = np.arange(n_mels)
    highest = n_mels * (1 - _LOST_TREBLE * rng.random((n_windows, 1, 1)))
    lowest = n_mels * _LOST_BASS * rng.random((n_windows, 1, 1))
    lost = (treble & (band >= highest)) | (bass & (band < lowest))
    changed = (windows - reduction - _LOSS_DB * lost).astype(np.float32)
    noise_db = np.where(noisy, rng.uniform(*_NOISE_DB, (n_windows, 1, 1)), -np.inf)
    return add_white_noise(changed, noise_db)


def mask(windows: NDArray[np.float32], augmentation: Augmentation, rng: np.random.Generator) -> NDArray[np.float32]:
    """Set adjacent bands and adjacent frames of each window to zero, the floor (SpecAugment, Park 2019).

    Args:
        windows: Normalised, ``[n_windows, n_frames, n_mels]``.
        augmentation: Its ``mask_bands`` and ``mask_frames`` limit the widths.
        rng: Source of randomness.
    """
    n_windows, n_frames, n_mels = windows.shape
    keep = np.ones_like(windows)
    for axis_length, max_width, axis in ((n_mels, augmentation.mask_bands, 2), (n_frames, augmentation.mask_frames, 1)):
        width = rng.integers(0, max_width + 1, n_windows)
        first = rng.integers(0, axis_length - width + 1)
        position = np.arange(axis_length)[None]
        masked = (position >= first[:, None]) & (position < (first + width)[:, None])
        keep[np.broadcast_to(np.expand_dims(masked, 3 - axis), keep.shape)] = 0
    return windows * keep


def mix_style(
    windows: NDArray[np.float32], augmentation: Augmentation, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Mix the mean and standard deviation of each band over time with those of another window of the batch.

    Args:
        windows: Normalised, ``[n_windows, n_frames, n_mels]``.
        augmentation: Its ``style`` is the share of the windows that are changed.
        rng: Source of randomness.
    """
    chosen = np.flatnonzero(rng.random(len(windows)) < augmentation.style)
    if not len(chosen):
        return windows
    mean, deviation = windows.mean(axis=1, keepdims=True), windows.std(axis=1, keepdims=True) + np.float32(1e-3)
    share = rng.beta(_STYLE_BETA, _STYLE_BETA, (len(chosen), 1, 1)).astype(np.float32)
    other = rng.integers(len(windows), size=len(chosen))
    centred = (windows[chosen] - mean[chosen]) / deviation[chosen]
    new_deviation = share * deviation[chosen] + (1 - share) * deviation[other]
    changed = windows.copy()
    changed[chosen] = centred * new_deviation + share * mean[chosen] + (1 - share) * mean[other]
    return changed


def mix_up(
    windows: NDArray[np.float32], targets: NDArray[np.float32], augmentation: Augmentation, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mix each window and its target with another window of the batch and its target, in the same proportion.

    Args:
        windows: Normalised, ``[n_windows, n_frames, n_mels]``.
        targets: Share of each genre, ``[n_windows, n_labels]``.
        augmentation: Its ``mixup`` is the parameter of the beta distribution.
        rng: Source of randomness.
    """
    if augmentation.mixup == 0:
        return windows, targets
    share = rng.beta(augmentation.mixup, augmentation.mixup, len(windows)).astype(np.float32)
    share = np.maximum(share, 1 - share)
    other = rng.permutation(len(windows))
    mixed = windows * share[:, None, None] + windows[other] * (1 - share)[:, None, None]
    return mixed, targets * share[:, None] + targets[other] * (1 - share)[:, None]


def shift_pitch(windows: NDArray[np.float32], semitones: float, features: FeatureSpec) -> NDArray[np.float32]:
    """Shift the spectrum along the logarithm of frequency, as a change of pitch does, by interpolating between bands.

    Args:
        windows: Log-mel values, ``[n_windows, n_frames, n_mels]``.
        semitones: How far; upwards if positive.
        features: Positions of the mel bands.
    """
    centres = mel_edges(n_mels=features.n_mels, fmin=features.fmin, fmax=features.fmax, scale=features.mel_scale)[1:-1]
    at = np.interp(centres / 2 ** (semitones / 12), centres, np.arange(len(centres)))
    below = np.minimum(at.astype(np.intp), len(centres) - 2)
    weight = (at - below).astype(np.float32)
    shifted: NDArray[np.float32] = windows[..., below] * (1 - weight) + windows[..., below + 1] * weight
    return shifted


def add_white_noise(windows: NDArray[np.float32], level_db: float | NDArray[np.float64]) -> NDArray[np.float32]:
    """Add the power of white noise, which is the same in every band of area-normalised mel filters.

    Args:
        windows: Log-mel values in dB, ``[n_windows, n_frames, n_mels]``.
        level_db: Level of the noise relative to the mean power of each window; a scalar or ``[n_windows, 1, 1]``.
    """
    power = 10.0 ** (windows / 10.0)
    noise = power.mean(axis=(1, 2), keepdims=True) * np.asarray(10.0 ** (level_db / 10.0), dtype=np.float32)
    return np.asarray(10.0 * np.log10(power + noise), dtype=np.float32)
