"""Which genres are written, by what a file has and how sure the prediction is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.recordings import wav_bytes
from wholetrack.contracts import Ranking, TrackPrediction
from wholetrack.contracts.prediction import RankedGenre
from wholetrack.pipeline import Pipeline
from wholetrack.tagging.choice import Choice, Mode, Rules
from wholetrack.tagging.genre_map import GenreMap

RULES = Rules(mode=Mode.ONLY_MISSING, min_confidence=0.5, max_genres=1, min_share=0.2, genre_map=GenreMap())
MAP = GenreMap.parse('allowed = ["Blues", "Rap"]\n[names]\nhiphop = "Rap"\n[aliases]\nRapping = "Rap"', origin="test")


@pytest.fixture(scope="module")
def prediction(
    pipeline: Pipeline, tune: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory
) -> TrackPrediction:
    """A prediction of blues with a share of 60 %, hiphop with 30 % and rock with 10 %."""
    song = tmp_path_factory.mktemp("song") / "song.wav"
    song.write_bytes(wav_bytes(tune[: 4 * 22050], 22050))
    ranked = tuple(RankedGenre(genre, share) for genre, share in (("blues", 0.6), ("hiphop", 0.3), ("rock", 0.1)))
    found = pipeline.predict(song, max_duration_s=60)
    return replace(found, summed_score=Ranking(ranked), confidence=0.7, in_domain=True)


@pytest.mark.parametrize(
    ("changes", "present", "genres"),
    [
        ({}, [], ("blues",)),
        ({"max_genres": 3}, [], ("blues", "hiphop")),
        ({"max_genres": 3, "min_share": 0.05}, [], ("blues", "hiphop", "rock")),
        ({"mode": Mode.REPLACE}, ["Jazz"], ("blues",)),
        ({"mode": Mode.APPEND}, ["Jazz"], ("Jazz", "blues")),
        ({"mode": Mode.APPEND, "max_genres": 2}, ["Blues"], ("Blues", "hiphop")),
        ({"genre_map": MAP, "max_genres": 3, "min_share": 0}, [], ("Blues", "Rap")),
        ({"genre_map": MAP, "max_genres": 2, "mode": Mode.APPEND}, ["Rapping"], ("Rapping", "Blues")),
    ],
)
def test_genres_are_written(
    prediction: TrackPrediction, changes: dict[str, Any], present: list[str], genres: tuple[str, ...]
) -> None:
    assert replace(RULES, **changes).choose(prediction, present) == Choice(genres)


@pytest.mark.parametrize(
    ("changes", "facts", "present", "reason"),
    [
        ({}, {}, ["Jazz"], "has a genre"),
        ({"mode": Mode.REPLACE}, {}, ["blues"], "has this genre"),
        ({"mode": Mode.APPEND}, {}, ["Blues", "Jazz"], "has this genre"),
        ({}, {"summed_score": Ranking(())}, [], "silent"),
        ({}, {"in_domain": False}, [], "unlike the music that the model knows"),
        ({"min_confidence": 0.8}, {}, [], "confidence below 0.8"),
        ({"genre_map": GenreMap(allowed=("Jazz",))}, {}, [], "no name for this genre is allowed"),
    ],
)
def test_files_are_skipped(
    prediction: TrackPrediction,
    changes: dict[str, Any],
    facts: dict[str, Any],
    present: list[str],
    reason: str,
) -> None:
    chosen = replace(RULES, **changes).choose(replace(prediction, **facts), present)
    assert chosen == Choice(tuple(present), reason)
