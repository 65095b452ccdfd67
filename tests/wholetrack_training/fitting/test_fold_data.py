"""What a fold may learn from: nothing of the fold that is judged, in any form."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

from wholetrack_training.data.audio_pool import POOL_RATE, AudioPool
from wholetrack_training.data.tracks import Track, TrackSet
from wholetrack_training.errors import DataError
from wholetrack_training.fitting.fold_data import ALL, fold_data

pytestmark = pytest.mark.torch


def track(name: str, fold: int | None, *, genre: int = 0, duplicate_of: str | None = None) -> Track:
    frames = np.full((50, 4), float(genre), dtype=np.float32)
    return Track(name=name, genre=genre, frames=frames, artist=name, fold=fold, duplicate_of=duplicate_of)


TRACKS = TrackSet(
    ("blues", "disco"),
    (
        track("blues.0", 1),
        track("blues.1", 2),
        track("disco.0", 3, genre=1),
        track("disco.1", None, genre=1),
        track("disco.2", 2, genre=1, duplicate_of="blues.0"),
    ),
)
TAGS = {name: np.full((2, 3), 0.5, dtype=np.float32) for name in ("blues.0", "blues.1")}


def audio(*names: str) -> AudioPool:
    samples = np.repeat(np.arange(len(names), dtype=np.int16), POOL_RATE)
    return AudioPool(names, np.arange(len(names) + 1, dtype=np.int64) * POOL_RATE, samples)


def test_the_left_out_fold_and_its_duplicates_take_no_part() -> None:
    data = fold_data(1, TRACKS, audio("blues.0.flac", "blues.1.flac", "disco.0.flac", "disco.1.flac"), TAGS)
    assert data.audio.names == ("blues.1.flac", "disco.0.flac")
    assert data.audio_genres.tolist() == [0, 1]
    assert sorted(set(data.audio.samples.tolist())) == [1, 2]
    # blues.1 and disco.0: disco.1 has no fold, disco.2 is a duplicate of a track that is left out.
    assert data.genres.tolist() == [0, 1]
    assert data.frames.shape == (2, 50, 4)
    assert data.tags[0].eq(0).all()
    assert data.tags[1].isnan().all()


def test_the_published_network_learns_from_everything() -> None:
    data = fold_data(ALL, TRACKS, audio("blues.0.flac", "disco.1.flac"), TAGS)
    assert data.genres.tolist() == [0, 0, 1, 1, 1]
    assert data.audio.names == ("blues.0.flac", "disco.1.flac")


def test_recordings_that_are_not_among_the_tracks_are_refused() -> None:
    with pytest.raises(DataError, match="1 recordings are not among the tracks, such as pop.9"):
        fold_data(1, TRACKS, audio("blues.1.flac", "pop.9.flac"), TAGS)


def test_a_fold_without_recordings_is_refused() -> None:
    with pytest.raises(DataError, match="without fold 1, no recording is left"):
        fold_data(1, TRACKS, audio("blues.0.flac"), TAGS)
