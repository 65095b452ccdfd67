"""Augmentation changes what it should and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

from wholetrack.features.logmel import LogMel
from wholetrack_training.data.tracks import TrackSet
from wholetrack_training.systems.augmentation import (
    NO_AUGMENTATION,
    Augmentation,
    add_white_noise,
    degrade,
    mask,
    mix_style,
    mix_up,
    random_eq,
    random_window,
    shift_pitch,
)
from wholetrack_training.systems.guimaraes_cnn import cut_out, flip_time
from wholetrack_training.systems.recipe import Source
from wholetrack_training.systems.registry import SYSTEMS

pytestmark = pytest.mark.torch


@pytest.fixture
def windows(toys: TrackSet, rng: np.random.Generator) -> NDArray[np.float32]:
    """Sixteen windows of one track with random tempo."""
    return np.stack([random_window(toys.tracks[0].frames, 39, Augmentation(), rng) for _ in range(16)])


def test_a_random_window_is_a_slice_of_the_track(toys: TrackSet, windows: NDArray[np.float32]) -> None:
    track = toys.tracks[0]
    plain = random_window(track.frames, 39, NO_AUGMENTATION, np.random.default_rng(3))
    start = next(i for i in range(390 - 39) if np.allclose(track.frames[i : i + 1].mean(), plain[0].mean(), atol=3))
    assert start >= 0
    assert windows.shape == (16, 39, 128)
    assert windows.min() >= track.frames.min()
    assert windows.max() <= track.frames.max()


def test_random_eq_is_the_same_for_all_frames_of_a_window(
    windows: NDArray[np.float32], rng: np.random.Generator
) -> None:
    assert np.array_equal(random_eq(windows, NO_AUGMENTATION, rng), windows)
    equalised = random_eq(windows, Augmentation(shift_bands=0), rng)
    np.testing.assert_allclose(np.diff(equalised, axis=1), np.diff(windows, axis=1), atol=1e-4)
    assert not np.allclose(equalised, windows, atol=1.0)


def test_degradation_affects_some_windows_and_never_adds_more_than_noise(
    windows: NDArray[np.float32], rng: np.random.Generator
) -> None:
    assert degrade(windows, NO_AUGMENTATION, rng) is windows
    degraded = degrade(windows, replace(NO_AUGMENTATION, degradation=0.15), rng)
    changed = ~np.isclose(degraded, windows, atol=1e-3).all(axis=(1, 2))
    assert 0 < changed.sum() < len(windows)
    # The loudest noise is 15 dB below the mean power of the window.
    mean_db = 10 * np.log10((10 ** (windows / 10)).mean(axis=(1, 2), keepdims=True))
    limit = 10 * np.log10(10 ** (windows / 10) + 10 ** ((mean_db - 15) / 10))
    assert (degraded <= limit + 1e-3).all()


def test_masks_set_some_bands_and_frames_to_zero(windows: NDArray[np.float32], rng: np.random.Generator) -> None:
    positive = windows - windows.min() + 1
    masked = mask(positive, Augmentation(mask_bands=16, mask_frames=6), rng)
    assert ((masked == positive) | (masked == 0)).all()
    assert 0 < (masked == 0).mean() < 0.3


def test_mixup_keeps_the_sum_of_the_targets(windows: NDArray[np.float32], rng: np.random.Generator) -> None:
    targets = np.eye(2, dtype=np.float32)[rng.integers(0, 2, 16)]
    mixed, shares = mix_up(windows, targets, Augmentation(), rng)
    assert mixed.shape == windows.shape
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, atol=1e-6)
    assert mix_up(windows, targets, NO_AUGMENTATION, rng)[0] is windows


def test_style_changes_level_and_contrast_of_a_band_but_not_its_shape_over_time(rng: np.random.Generator) -> None:
    windows = rng.normal(size=(50, 39, 8)).astype(np.float32) * rng.uniform(0.1, 2, (50, 1, 8)).astype(np.float32)
    windows += rng.normal(size=(50, 1, 8)).astype(np.float32)
    styled = mix_style(windows, replace(NO_AUGMENTATION, style=0.5), rng)
    changed = (styled != windows).any(axis=(1, 2))
    assert 10 < changed.sum() < 40
    for before, after in zip(windows[changed], styled[changed], strict=True):
        for band in range(8):
            assert np.corrcoef(before[:, band], after[:, band])[0, 1] == pytest.approx(1, abs=1e-4)
    same = np.repeat(windows[:1], 4, axis=0)
    np.testing.assert_allclose(mix_style(same, replace(NO_AUGMENTATION, style=1.0), rng), same, atol=1e-5)
    assert mix_style(windows, NO_AUGMENTATION, rng) is windows


def test_a_pitch_shift_of_a_semitone_moves_a_tone_by_a_semitone() -> None:
    features = LogMel(SYSTEMS["campana-crnn"].of(Source.PRECOMPUTED).features, 22050)

    def frame_of(pitch: float) -> NDArray[np.float32]:
        time = np.arange(features.spec.n_fft) / 22050
        return features.frames(np.sin(2 * np.pi * pitch * time).astype(np.float32), np.array([0]))

    for pitch in (500.0, 2000.0, 5000.0):
        shifted = shift_pitch(frame_of(pitch), 1.0, features.spec)
        expected = frame_of(pitch * 2 ** (1 / 12))
        assert abs(int(shifted.argmax()) - int(expected.argmax())) <= 1
        assert np.array_equal(shift_pitch(frame_of(pitch), 0.0, features.spec), frame_of(pitch))


def test_white_noise_has_the_given_level_relative_to_the_mean_power() -> None:
    windows = np.full((1, 5, 8), -30.0, dtype=np.float32)
    windows[0, 0] = -200.0
    noisy = add_white_noise(windows, -20.0)
    # Four fifths of the values have a power of -30 dB. The silent fifth then consists of noise alone.
    assert noisy[0, 0, 0] == pytest.approx(-30 - 20 + 10 * np.log10(0.8), abs=1e-4)
    assert noisy[0, 1, 0] == pytest.approx(-30 + 10 * np.log10(1 + 0.008), abs=1e-4)


def test_flip_and_cutout(rng: np.random.Generator) -> None:
    windows = rng.random((400, 20, 128), dtype=np.float32) + np.float32(0.1)
    flipped = flip_time(windows, 0.5, rng)
    same = (flipped == windows).all(axis=(1, 2))
    assert 150 < same.sum() < 250
    assert np.array_equal(flipped[~same], windows[~same, ::-1])
    cut = cut_out(windows, 0.5, rng)
    touched = (cut == 0).any(axis=(1, 2))
    assert 150 < touched.sum() < 250
    assert np.array_equal(cut[~touched], windows[~touched])
    bands, frames = (cut == 0).all(axis=1).sum(axis=1), (cut == 0).all(axis=2).sum(axis=1)
    assert set(bands[touched]) <= {1, 2, 3}
    assert set(frames[touched]) <= {1, 2, 3, 4}
