"""Serving computes what training saw: the held-out clips are as often right from audio as from their spectrograms."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from bench.running import Server
from service.contracts import ModelCard
from service.pipeline import Pipeline


@pytest.mark.data
@pytest.mark.torch
def test_the_clips_are_as_often_right_from_audio_as_from_their_spectrograms(
    server: Server, pipeline: Pipeline, music: Path
) -> None:
    from training.evaluation import cut_windows
    from training.tracks import load_precomputed

    served = pipeline.model(None)
    card: ModelCard = served.card
    tracks = load_precomputed(music / "gtzan-mel.npz", music / "tracks.csv")
    with (music / "tracks.csv").open() as table:
        clips = [row for row in csv.DictReader(table) if row["audio"]]
    assert len(clips) == 50
    # The split that this rests on: the bundle's own, with every one of the clips among the tracks never seen.
    assert {clip["track"] for clip in clips} <= set(card.trained_on["never_seen"])
    classifier = served.engine.classifier
    right_from_audio = right_from_spectrogram = agreed = 0
    for clip, track in zip(clips, tracks.named([clip["track"] for clip in clips]).tracks, strict=True):
        response = server.post(music / clip["audio"], windows="none")
        assert response.status_code == 200
        by_audio = response.json()["prediction"]["summed_score"]["genre"]
        windows = cut_windows(track, card.features, card.windows, card.audio)
        rows = np.concatenate([classifier.run(windows[i : i + 8]) for i in range(0, len(windows), 8)])
        by_spectrogram = card.labels[int(rows.sum(axis=0, dtype=np.float64).argmax())]
        right_from_audio += by_audio == clip["genre"]
        right_from_spectrogram += by_spectrogram == clip["genre"]
        agreed += by_audio == by_spectrogram
    print(f"{right_from_audio} right from audio, {right_from_spectrogram} from spectrograms, {agreed} agree, of 50")
    assert abs(right_from_audio - right_from_spectrogram) <= 2
    stated: float = card.metrics["held_out"]["track_accuracy_summed"]
    assert right_from_spectrogram == round(stated * len(clips))
