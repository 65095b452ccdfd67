"""Sounds that are not music are reproducible and audible, and a network can be trained to be undecided about them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

from tests.wholetrack_training.small_network import FULL, SMALL_SHAPE, toy_spec
from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack.features.normalise import normalise
from wholetrack_training.data.tracks import TrackSet
from wholetrack_training.errors import RecipeError
from wholetrack_training.fitting.classifier import classifier
from wholetrack_training.fitting.runs import Run
from wholetrack_training.systems.outliers import KINDS, outlier, outlier_frames
from wholetrack_training.systems.speech import LANGUAGES, quantised_frames, speak, speech_frames

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("kind", list(KINDS))
def test_sounds_of_every_kind_have_the_same_peak_and_differ(kind: str) -> None:
    rng = np.random.default_rng(5)
    one, other = (outlier(kind, rng, sample_rate=22050, seconds=2) for _ in range(2))
    for sound in (one, other):
        assert sound.shape == (44100,)
        assert np.isfinite(sound).all()
        assert np.abs(sound).max() == pytest.approx(0.5)
        assert np.sqrt(np.square(sound).mean()) > 0.005
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(("speech", "voices"), [(False, 0), (True, 240)])
def test_the_outliers_cover_every_kind(speech: bool, voices: int) -> None:  # noqa: FBT001
    bank = outlier_frames(FULL.audio, FULL.features, speech=speech)
    assert len(bank) == 24 * len(KINDS) + voices
    assert {frames.shape for frames in bank} == {(78, 128)}
    assert all(np.isfinite(frames).all() for frames in bank)


def test_speech_is_refused_for_other_features() -> None:
    with pytest.raises(RecipeError, match="set speech=false"):
        outlier_frames(FULL.audio, FULL.features.model_copy(update={"n_mels": 64}), speech=True)


def test_the_languages_that_models_are_tested_with_are_not_used_for_training() -> None:
    assert not {language.partition("-")[0] for language in LANGUAGES} & {"en", "de", "fr", "es"}


@pytest.mark.espeak
def test_speech_can_be_generated_again(decoder: FfmpegDecoder, tmp_path: Path) -> None:
    speak(np.random.default_rng(1), tmp_path / "spoken.wav")
    frames = quantised_frames(tmp_path / "spoken.wav", decoder)
    stored = speech_frames()
    assert frames.shape == stored.shape[1:]
    assert frames.dtype == np.uint8
    # Unlike noise, speech has pauses and a falling spectrum, so its mean level is as low as that of the stored voices.
    assert frames.max() == 255
    assert frames.mean() / 255 * 80 - 80 == pytest.approx(stored.mean(), abs=15)


def test_a_network_trained_with_outliers_is_undecided_about_them(toys: TrackSet, tmp_path: Path) -> None:
    recipe = FULL.changed(
        {
            **SMALL_SHAPE,
            "windows_per_track": 4,
            "outliers": 8,
            "augmentation.mixup": 0.0,
            "schedule.epochs": 8,
            "schedule.batch": 16,
            "schedule.learning_rate": 1e-2,
            "schedule.averaging": 0.8,
            "schedule.label_smoothing": 0.0,
        }
    )
    run = Run(tmp_path)
    found = run.fit(toys, toy_spec(toys), recipe)
    assert found
    assert found.track_accuracy_summed == 1.0
    windows = normalise(
        np.stack([frames[20:59] for frames in outlier_frames(recipe.audio, recipe.features)]),
        recipe.features.normalisation,
    )
    peaks = classifier(run.network())(windows).max(axis=1)
    assert np.median(peaks) < 0.7
