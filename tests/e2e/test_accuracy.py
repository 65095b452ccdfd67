"""Serving computes what training saw: real clips are as often right from audio as from their spectrograms.

Each clip goes to the network of the artist-filtered fold that never heard its artist (`tests/folds`, by `make train`).
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from bench.running import running_server
from service.inference.bundle import load_bundles
from service.settings import Settings
from service.startup import build_pipeline
from tests.conftest import PROJECT

FOLDS = PROJECT / "tests" / "folds"


@pytest.mark.data
@pytest.mark.torch
def test_the_clips_are_as_often_right_from_audio_as_from_their_spectrograms(tmp_path: Path, music: Path) -> None:
    from training.evaluation import cut_windows
    from training.tracks import load_precomputed

    cards = {bundle.card.trained_on["part"]: bundle.card for bundle in load_bundles(FOLDS).values()}
    tracks = load_precomputed(music / "gtzan-mel.npz", music / "tracks.csv")
    with (music / "tracks.csv").open() as table:
        clips = [row for row in csv.DictReader(table) if row["audio"] and row["fold"]]
    assert len(clips) >= 40
    pipeline = build_pipeline(Settings(models_dir=FOLDS, default_model=cards[1].name, device="cpu"))
    right_from_audio = right_from_spectrogram = agreed = 0
    with running_server(tmp_path, models_dir=FOLDS, default_model=cards[1].name) as server:
        for clip, track in zip(clips, tracks.named([clip["track"] for clip in clips]).tracks, strict=True):
            card = cards[int(clip["fold"])]
            assert clip["track"] in card.trained_on["never_seen"]
            response = server.post(music / clip["audio"], model=card.name, windows="none")
            assert response.status_code == 200
            by_audio = response.json()["prediction"]["summed_score"]["genre"]
            windows = cut_windows(track, card.features, card.windows, card.audio)
            classifier = pipeline.model(card.name).engine.classifier
            rows = np.concatenate([classifier.run(windows[i : i + 8]) for i in range(0, len(windows), 8)])
            by_spectrogram = card.labels[int(rows.sum(axis=0, dtype=np.float64).argmax())]
            right_from_audio += by_audio == clip["genre"]
            right_from_spectrogram += by_spectrogram == clip["genre"]
            agreed += by_audio == by_spectrogram
    pipeline.close()
    print(f"of {len(clips)}: {right_from_audio} right from audio, {right_from_spectrogram} from spectrograms")
    assert abs(right_from_audio - right_from_spectrogram) <= 2
    assert agreed >= len(clips) - 5
