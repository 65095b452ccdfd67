"""A finished run is published as a bundle that the service runs, with a card that states its figures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.harness.recordings import wav_bytes
from wholetrack.inference.bundle import load_bundle, load_bundles
from wholetrack.settings import Settings
from wholetrack.startup import build_pipeline

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

from tests.wholetrack_training.small_network import FULL, SMALL, record_of, toy_spec
from wholetrack_training.data.splits import Protocol, all_tracks, artist_split
from wholetrack_training.data.tracks import TrackSet
from wholetrack_training.errors import DataError, PublishingError
from wholetrack_training.fitting.runs import Run, RunSpec
from wholetrack_training.publishing.bundles import publish
from wholetrack_training.publishing.golden import golden_windows

pytestmark = pytest.mark.torch


def test_a_published_bundle_is_served(published: Path, toys: TrackSet, tmp_path: Path) -> None:
    card = load_bundles(tmp_path / "models")["toy"].card
    assert card.metrics["random_split"]["runs"] == 1
    assert card.metrics["random_split"]["track_accuracy_summed"] == 1.0
    assert set(card.trained_on["never_seen"]) == set(toy_spec(toys).split.test)
    assert card.metrics["export_max_difference"] < 1e-4
    text = (published / "CARD.md").read_text()
    assert "| tracks: accuracy by summed score | 1.000 | - |" in text
    pipeline = build_pipeline(Settings(models_dir=tmp_path / "models", default_model="toy", device="cpu"))
    try:
        for pitch, genre in ((200.0, "low"), (6000.0, "high")):
            song = tmp_path / "song.wav"
            time = np.arange(22050 * 5) / 22050
            song.write_bytes(wav_bytes((0.5 * np.sin(2 * np.pi * pitch * time)).astype(np.float32), 22050))
            assert pipeline.predict(song, max_duration_s=60).summed_score.genre == genre
    finally:
        pipeline.close()


def test_figures_of_another_recipe_are_refused(finished: Run, toys: TrackSet, tmp_path: Path) -> None:
    other = replace(record_of(finished), recipe=SMALL.changed({"schedule.epochs": 1}).as_dict())
    with pytest.raises(PublishingError, match="must come from runs of the published recipe"):
        publish(finished, [other], toys, name="toy", version="1", licence="Apache-2.0", models=tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_a_network_trained_on_all_tracks_has_the_figures_of_the_folds(toys: TrackSet, tmp_path: Path) -> None:
    recipe = SMALL.changed(
        {"schedule.keep": "last", "schedule.epochs": 1, "windows_per_track": 1, "outliers": 4, "speech": False}
    )
    run = Run(tmp_path / "run")
    run.fit(toys, RunSpec("toys", Protocol.ALL, 1, 0, toys.labels, all_tracks(toys)), recipe)
    with pytest.raises(DataError, match="none are left for evaluation"):
        record_of(run)
    records = []
    for fold in (1, 2):
        other = Run(tmp_path / f"fold-{fold}")
        split = artist_split(toys, fold=fold, seed=0).without_validation()
        other.fit(toys, RunSpec("toys", Protocol.ARTIST_FILTERED, fold, 0, toys.labels, split), recipe)
        records.append(record_of(other))
    folder = publish(run, records, toys, name="toy", version="2", licence="Apache-2.0", models=tmp_path / "models")
    card = load_bundles(tmp_path / "models")["toy"].card
    assert card.domain is not None
    assert card.domain.least_peak == card.metrics["domain"]["least_peak"]
    assert card.trained_on["tracks"] == len(toys)
    text = (folder / "CARD.md").read_text()
    assert "all 48 tracks with a recipe chosen on the artist-filtered folds" in text
    assert "32 tracks, each classified by a network that was not trained on its artist:" in text
    assert "`in_domain` is false if" in text


def test_the_card_of_a_distilled_network_says_so(toys: TrackSet, tmp_path: Path) -> None:
    recipe = SMALL.changed({"schedule.teachers": 2, "schedule.epochs": 1, "windows_per_track": 1})
    run = Run(tmp_path / "run")
    run.fit(toys, toy_spec(toys), recipe)
    folder = publish(
        run, [record_of(run)], toys, name="taught", version="1", licence="Apache-2.0", models=tmp_path / "models"
    )
    assert load_bundle(folder).card.trained_on["teachers"] == 2
    assert "distilled from 2 networks of the same recipe with other seeds" in (folder / "CARD.md").read_text()


def test_the_golden_windows_are_reproducible() -> None:
    windows = golden_windows(FULL)
    assert windows.shape == (8, 39, 128)
    assert 0.1 < windows.mean() < 0.9
    assert np.array_equal(windows, golden_windows(FULL))
