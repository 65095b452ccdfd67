"""Splits keep duplicates and artists together, are stratified, and depend only on their seed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.wholetrack_training.toys import toy_track
from wholetrack_training.data.precomputed import load_precomputed
from wholetrack_training.data.splits import Split, artist_split, random_split
from wholetrack_training.data.tracks import TrackSet
from wholetrack_training.errors import DataError

ARTISTS = [f"artist {i}" for i in range(6)]


def sides(split: Split) -> dict[str, str]:
    found = dict.fromkeys(split.train, "train")
    found |= dict.fromkeys(split.validation, "validation")
    found |= dict.fromkeys(split.test, "test")
    assert len(found) == len(split.train) + len(split.validation) + len(split.test)
    return found


@pytest.fixture(scope="module")
def gtzan(music: Path) -> TrackSet:
    return load_precomputed(music / "gtzan-mel.npz", music / "tracks.csv")


def test_a_split_depends_only_on_its_seed(toys: TrackSet) -> None:
    assert random_split(toys, seed=1) == random_split(toys, seed=1)
    assert random_split(toys, seed=1) != random_split(toys, seed=2)


def test_every_track_is_on_one_side_and_every_genre_on_all_sides(toys: TrackSet) -> None:
    found = sides(random_split(toys, seed=1, validation=0.25, test=0.25))
    assert set(found) == {track.name for track in toys.tracks}
    assert Counter((name.split(".")[0], side) for name, side in found.items()) == {
        (genre, side): n for genre in ("low", "high") for side, n in (("train", 12), ("validation", 6), ("test", 6))
    }


def test_chains_of_duplicates_stay_together(toys: TrackSet) -> None:
    tracks = list(toys.tracks)
    for i in range(10):
        a, b, c = (
            toy_track(f"low.1{i}{x}", 0, i, duplicate_of=d)
            for x, d in (("a", f"low.1{i}b"), ("b", f"low.1{i}c"), ("c", None))
        )
        tracks += [a, b, c]
    for seed in range(5):
        found = sides(random_split(TrackSet(toys.labels, tuple(tracks)), seed=seed, validation=0.3, test=0.3))
        for i in range(10):
            assert len({found[f"low.1{i}{x}"] for x in "abc"}) == 1


def test_no_artist_is_on_more_than_one_side(toys: TrackSet) -> None:
    split = artist_split(toys, fold=2, seed=0, validation=0.3)
    found = sides(split)
    artists: dict[str | None, set[str]] = {}
    for track in toys.tracks:
        artists.setdefault(track.artist, set()).add(found[track.name])
    assert all(len(sides_of) == 1 for sides_of in artists.values())
    assert {track.name for track in toys.tracks if track.fold == 2} == set(split.test)
    assert split.validation


def test_artists_with_two_genres_and_recordings_with_two_artists_stay_on_one_side() -> None:
    tracks = []
    for genre, name in enumerate(("low", "high")):
        tracks += [
            replace(toy_track(f"{name}.{i:05}", genre, i), artist=f"artist {i % 6}", fold=1 + i % 6 // 2)
            for i in range(30)
        ]
    # A duplicate under another name connects two artists, and one of them with the fold to test on.
    tracks.append(replace(toy_track("low.cover", 0, 1), artist="cover band", fold=2, duplicate_of="high.00000"))
    tracks.append(replace(toy_track("low.other", 0, 1), artist="artist 5", fold=3, duplicate_of="low.cover"))
    split = artist_split(TrackSet(("low", "high"), tuple(tracks)), fold=1, seed=3, validation=0.4)
    found = sides(split)
    sides_of = {name: {found[t.name] for t in tracks if t.artist == name and t.name in found} for name in ARTISTS}
    assert all(len(own) <= 1 for own in sides_of.values()), sides_of
    assert split.validation
    # Artists who share a recording with the test fold are on no side.
    assert "low.cover" not in found
    assert sides_of["artist 5"] == set()


def test_a_fold_that_does_not_exist(toys: TrackSet) -> None:
    with pytest.raises(DataError, match="no track is in fold 9"):
        artist_split(toys, fold=9, seed=0)


@pytest.mark.data
def test_duplicates_and_artists_of_gtzan_stay_on_one_side(gtzan: TrackSet) -> None:
    assert len(gtzan) == 949
    for seed in range(3):
        found = sides(random_split(gtzan, seed=seed))
        for track in gtzan.tracks:
            if track.duplicate_of in found:
                assert found[track.name] == found[track.duplicate_of]
        assert found["metal.00058"] == found["rock.00016"]
        assert 90 <= sum(side == "test" for side in found.values()) <= 100
    tested: Counter[str] = Counter()
    for fold in (1, 2, 3):
        split = artist_split(gtzan, fold=fold, seed=fold)
        found = sides(split)
        tested.update(split.test)
        for artist in {track.artist for track in gtzan.tracks if track.artist}:
            of_artist = {found[t.name] for t in gtzan.tracks if t.artist == artist and t.name in found}
            assert len(of_artist) <= 1
    assert set(tested.values()) == {1}
    assert len(tested) == sum(track.fold is not None for track in gtzan.tracks)
