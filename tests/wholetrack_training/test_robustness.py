"""Perturbed copies of a clip are what they are called, and are judged by the network that never heard the artist."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.recordings import wav_bytes
from wholetrack.decoding.decoder import FfmpegDecoder

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

from wholetrack_training.data.dataset import load_folder
from wholetrack_training.data.splits import Protocol, artist_split
from wholetrack_training.data.tracks import DataError
from wholetrack_training.fitting.runs import Run, RunSpec
from wholetrack_training.publishing.publish import publish
from wholetrack_training.results import robustness
from wholetrack_training.results.records import Record
from wholetrack_training.results.robustness import PERTURBATIONS, FoldModels, make, measure
from wholetrack_training.systems.recipe import Source
from wholetrack_training.systems.wholetrack_crnn import WholetrackCrnn

pytestmark = pytest.mark.torch

DURATION_S = {"5 % faster": 10 / 1.05, "5 % slower": 10 / 0.95, "half a second later": 9.5}
RISE_DB = {"12 dB louder": 12.0, "12 dB softer": -12.0, "a semitone up": 0.0, "mp3, 64 kb/s": 0.0}


@pytest.mark.parametrize("title", list(PERTURBATIONS))
def test_a_perturbed_clip_is_as_long_and_as_loud_as_its_name_says(
    title: str, decoder: FfmpegDecoder, tune: NDArray[np.float32], tmp_path: Path
) -> None:
    clip, to = tmp_path / "clip.wav", tmp_path / f"made.{PERTURBATIONS[title].suffix}"
    clip.write_bytes(wav_bytes(tune * np.float32(0.3), 22050))
    make(decoder.ffmpeg, clip, PERTURBATIONS[title], to)
    with decoder.open(to, sample_rate=22050, max_duration_s=60) as decoding:
        heard = np.concatenate(list(decoding.blocks()))
    assert len(heard) / 22050 == pytest.approx(DURATION_S.get(title, 10.0), abs=0.15)
    if title in RISE_DB:
        rise = 10 * np.log10(np.square(heard).mean() / np.square(tune * np.float32(0.3)).mean())
        assert rise == pytest.approx(RISE_DB[title], abs=1.0)


def test_clips_are_judged_by_the_fold_that_never_heard_their_artist(
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
    recipe = WholetrackCrnn.of(Source.AUDIO).changed(
        {"shape.channels": (4, 8, 8, 16, 16), "schedule.epochs": 1, "schedule.keep": "last", "windows_per_track": 1}
    )
    tracks = load_folder(music, audio=recipe.audio, features=recipe.features, decoder=decoder, cache=tmp_path / "cache")
    models = tmp_path / "models"
    judged = []
    for fold in (1, 2):
        run = Run(tmp_path / f"run-{fold}")
        split = artist_split(tracks, fold=fold, seed=0).without_validation()
        run.fit(tracks, RunSpec("toys", Protocol.ARTIST_FILTERED, fold, 0, tracks.labels, split), recipe)
        publish(run, [Record.of(run)], tracks, name=f"fold-{fold}", version="1", licence="none", models=models)
        judged.append(run.figures())
    chosen = {title: PERTURBATIONS[title] for title in ("as it is", "12 dB softer")}
    monkeypatch.setattr(robustness, "PERTURBATIONS", chosen)
    with FoldModels.serving(models) as folds:
        found = measure(folds, tracks, music, decoder.ffmpeg)
    assert found.clips == 12
    # Loudness does not matter to the features, whatever a network of one epoch thinks of them.
    assert found.accuracy["as it is"] == found.accuracy["12 dB softer"]
    right = sum(figures["track_accuracy_summed"] * figures["n_tracks"] for figures in judged)
    assert found.accuracy["as it is"] == pytest.approx(right / 12, abs=1e-3)
    publish(run, [Record.of(run)], tracks, name="fold-3", version="1", licence="none", models=tmp_path / "others")
    card = tmp_path / "others/fold-3/1/model.json"
    card.write_text(card.read_text().replace("artist-filtered", "random"))
    with pytest.raises(DataError, match="was not trained on an artist-filtered"), FoldModels.serving(card.parents[2]):
        pass
