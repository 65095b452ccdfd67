"""Sounds that are no music: always the same, audible, and a lesson in not knowing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack_training.data.splits import Protocol, random_split
from wholetrack_training.data.tracks import TrackSet
from wholetrack_training.fitting.fitting import classifier
from wholetrack_training.fitting.runs import Run, RunSpec
from wholetrack_training.systems.outliers import KINDS, outlier, outlier_frames
from wholetrack_training.systems.recipe import Source
from wholetrack_training.systems.speech import LANGUAGES, heard, speak, speech_frames
from wholetrack_training.systems.wholetrack_crnn import WholetrackCrnn

pytestmark = pytest.mark.torch

RECIPE = WholetrackCrnn.of(Source.PRECOMPUTED)


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_is_a_sound_of_half_the_scale_and_never_twice_the_same(kind: str) -> None:
    rng = np.random.default_rng(5)
    one, other = (outlier(kind, rng, sample_rate=22050, seconds=2) for _ in range(2))
    for sound in (one, other):
        assert sound.shape == (44100,)
        assert np.isfinite(sound).all()
        assert np.abs(sound).max() == pytest.approx(0.5)
        assert np.sqrt(np.square(sound).mean()) > 0.005
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(("speech", "voices"), [(False, 0), (True, 240)])
def test_the_bank_of_frames_is_the_same_on_every_machine_and_covers_every_kind(speech: bool, voices: int) -> None:  # noqa: FBT001
    bank = outlier_frames(RECIPE.audio, RECIPE.features, speech=speech)
    assert len(bank) == 24 * len(KINDS) + voices
    assert {frames.shape for frames in bank} == {(78, 128)}
    assert all(np.isfinite(frames).all() for frames in bank)


def test_speech_is_kept_in_one_grid_of_features_only() -> None:
    with pytest.raises(ValueError, match="set speech=false"):
        outlier_frames(RECIPE.audio, RECIPE.features.model_copy(update={"n_mels": 64}), speech=True)


def test_nobody_is_judged_by_a_voice_that_was_learned_from() -> None:
    assert not {language.partition("-")[0] for language in LANGUAGES} & {"en", "de", "fr", "es"}


@pytest.mark.espeak
def test_speech_can_be_made_anew(decoder: FfmpegDecoder, tmp_path: Path) -> None:
    speak(np.random.default_rng(1), tmp_path / "spoken.wav")
    frames = heard(tmp_path / "spoken.wav", decoder)
    kept = speech_frames()
    assert frames.shape == kept.shape[1:]
    assert frames.dtype == np.uint8
    # Speech has pauses and a spectrum that falls: like those that are kept, and unlike noise.
    assert frames.max() == 255
    assert frames.mean() / 255 * 80 - 80 == pytest.approx(kept.mean(), abs=15)


def test_a_network_that_heard_them_does_not_decide(toys: TrackSet, tmp_path: Path) -> None:
    recipe = RECIPE.changed(
        {
            "shape.channels": (4, 8, 8, 16, 16),
            "shape.hidden": 8,
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
    judged = run.fit(
        toys, RunSpec("toys", Protocol.RANDOM, 1, 0, toys.labels, random_split(toys, seed=1, test=0.25)), recipe
    )
    assert judged
    assert judged.track_accuracy_summed == 1.0
    from wholetrack.features.normalise import normalise

    windows = normalise(
        np.stack([frames[20:59] for frames in outlier_frames(recipe.audio, recipe.features)]),
        recipe.features.normalisation,
    )
    undecided = classifier(run.network())(windows).max(axis=1)
    assert np.median(undecided) < 0.7
