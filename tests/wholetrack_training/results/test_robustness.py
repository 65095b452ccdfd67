"""Perturbed clips match their names, and are classified by the network that was not trained on their artist."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.recordings import wav_bytes
from wholetrack.decoding.decoder import FfmpegDecoder

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

from tests.wholetrack_training.small_network import SMALL_SHAPE, record_of
from wholetrack_training.data.folder import load_folder
from wholetrack_training.data.splits import Protocol, artist_split
from wholetrack_training.errors import DataError
from wholetrack_training.fitting.runs import Run, RunSpec
from wholetrack_training.publishing.bundles import publish
from wholetrack_training.results import robustness
from wholetrack_training.results.robustness import PERTURBATIONS, FoldModels, measure, perturb
from wholetrack_training.systems.recipe import Source
from wholetrack_training.systems.wholetrack_crnn import WholetrackCrnn

pytestmark = pytest.mark.torch

DURATION_S = {"5 % faster": 10 / 1.05, "5 % slower": 10 / 0.95, "first half second removed": 9.5}
GAIN_DB = {"12 dB louder": 12.0, "12 dB quieter": -12.0, "a semitone up": 0.0, "mp3, 64 kb/s": 0.0}


@pytest.mark.parametrize("title", list(PERTURBATIONS))
def test_a_perturbed_clip_has_the_expected_duration_and_level(
    title: str, decoder: FfmpegDecoder, tune: NDArray[np.float32], tmp_path: Path
) -> None:
    clip, to = tmp_path / "clip.wav", tmp_path / f"perturbed.{PERTURBATIONS[title].suffix}"
    clip.write_bytes(wav_bytes(tune * np.float32(0.3), 22050))
    perturb(decoder.ffmpeg, clip, PERTURBATIONS[title], to)
    with decoder.open(to, sample_rate=22050, max_duration_s=60) as decoding:
        samples = np.concatenate(list(decoding.blocks()))
    assert len(samples) / 22050 == pytest.approx(DURATION_S.get(title, 10.0), abs=0.15)
    if title in GAIN_DB:
        gain = 10 * np.log10(np.square(samples).mean() / np.square(tune * np.float32(0.3)).mean())
        assert gain == pytest.approx(GAIN_DB[title], abs=1.0)


@pytest.mark.long
def test_clips_are_classified_by_the_fold_that_was_not_trained_on_their_artist(
    decoder: FfmpegDecoder, tune: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    music, rows = tmp_path / "music", []
    for genre in ("even", "odd"):
        (music / genre).mkdir(parents=True)
        for i in range(6):
            sound = np.roll(tune, 9000 * i)[: 22050 * 4][:: 1 if genre == "even" else -1]
            (music / genre / f"{i}.wav").write_bytes(wav_bytes(sound, 22050))
            rows.append(f"{genre}/{i}.wav,{genre}-{i // 2},{i // 2 % 2 + 1}")
    (music / "tracks.csv").write_text("\n".join(["track,artist,fold", *rows]))
    changes = {**SMALL_SHAPE, "schedule.epochs": 1, "schedule.keep": "last", "windows_per_track": 1, "outliers": 0}
    recipe = WholetrackCrnn.of(Source.AUDIO).changed(changes)
    tracks = load_folder(music, audio=recipe.audio, features=recipe.features, decoder=decoder, cache=tmp_path / "cache")
    models = tmp_path / "models"
    evaluated = []
    for fold in (1, 2):
        run = Run(tmp_path / f"run-{fold}")
        split = artist_split(tracks, fold=fold, seed=0).without_validation()
        run.fit(tracks, RunSpec("toys", Protocol.ARTIST_FILTERED, fold, 0, tracks.labels, split), recipe)
        publish(run, [record_of(run)], tracks, name=f"fold-{fold}", version="1", licence="none", models=models)
        evaluated.append(run.figures())
    chosen = {title: PERTURBATIONS[title] for title in ("original", "12 dB quieter")}
    monkeypatch.setattr(robustness, "PERTURBATIONS", chosen)
    with FoldModels.loaded_from(models) as folds:
        found = measure(folds, tracks, music, decoder.ffmpeg)
    assert found.clips == 12
    # The features do not depend on the level, so the predictions are the same, whether they are correct or not.
    assert found.accuracy["original"] == found.accuracy["12 dB quieter"]
    n_correct = sum(figures["track_accuracy_summed"] * figures["n_tracks"] for figures in evaluated)
    assert found.accuracy["original"] == pytest.approx(n_correct / 12, abs=1e-3)


def test_models_that_were_not_trained_on_a_fold_are_refused(published: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="was not trained on an artist-filtered fold"):  # noqa: SIM117
        with FoldModels.loaded_from(published.parents[1]):
            pass
    shutil.rmtree(published)
    with pytest.raises(DataError, match="does not contain a bundle"), FoldModels.loaded_from(tmp_path / "models"):
        pass
