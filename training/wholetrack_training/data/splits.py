"""Splits into training, validation and test tracks: random by track, or artist-filtered.

Every split keeps exact duplicates together, is stratified by genre and depends only on its seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from wholetrack_training.data.groups import artist_group_of, group_by, recording_of
from wholetrack_training.data.tracks import Track, TrackSet
from wholetrack_training.errors import DataError


class Protocol(StrEnum):
    """How tracks are split.

    Attributes:
        RANDOM: At random by track.
        ARTIST_FILTERED: By fold, with no artist on more than one side.
        ALL: Every track is a training track. For publishing a model whose recipe was evaluated in other runs.
        GIVEN: As listed in a file.
    """

    RANDOM = "random"
    ARTIST_FILTERED = "artist-filtered"
    ALL = "all"
    GIVEN = "given"


@dataclass(frozen=True, slots=True)
class Split:
    """Names of the tracks on each side.

    Attributes:
        train: Tracks to train on.
        validation: Tracks for early stopping.
        test: Tracks to evaluate on.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def without_validation(self) -> Split:
        """Return a split with the same test tracks that trains on all the others."""
        return Split(train=tuple(sorted(self.train + self.validation)), validation=(), test=self.test)


def split_tracks(tracks: TrackSet, protocol: Protocol, part: int) -> Split:
    """Split the tracks by a protocol.

    Args:
        tracks: The whole set.
        protocol: How to split.
        part: Number of the random split, or of the fold to test on. Ignored by ``ALL``.

    Raises:
        DataError: If no track is in that fold, or the protocol is ``GIVEN``, which needs a file.
    """
    match protocol:
        case Protocol.RANDOM:
            return random_split(tracks, seed=part)
        case Protocol.ARTIST_FILTERED:
            return artist_split(tracks, fold=part, seed=part)
        case Protocol.ALL:
            return all_tracks(tracks)
        case Protocol.GIVEN:
            raise DataError("the protocol 'given' needs a file with the split: pass --split")


def random_split(tracks: TrackSet, *, seed: int, validation: float = 0.1, test: float = 0.1) -> Split:
    """Split at random by track, as the authors of the four published systems did.

    Args:
        tracks: The whole set.
        seed: Seed of the shuffle.
        validation: Share of each genre's tracks used for early stopping.
        test: Share of each genre's tracks used for evaluation.
    """
    recording = recording_of(tracks.tracks)
    groups = group_by(tracks.tracks, lambda track: recording[track.name])
    return _draw(groups, len(tracks.labels), seed=seed, validation=validation, test=test)


def artist_split(tracks: TrackSet, *, fold: int, seed: int, validation: float = 0.1) -> Split:
    """Test on one artist-filtered fold and train on the others; no artist is on more than one of the three sides.

    Args:
        tracks: The whole set; tracks without a fold are left out.
        fold: The fold to test on.
        seed: Seed of the choice of validation artists.
        validation: Share of each genre's remaining tracks used for early stopping.

    Raises:
        DataError: If no track is in that fold.
    """
    filtered = [track for track in tracks.tracks if track.fold is not None]
    test = tuple(track.name for track in filtered if track.fold == fold)
    if not test:
        raise DataError(f"no track is in fold {fold}")
    group_of = artist_group_of(filtered)
    test_groups = {group_of[name] for name in test}
    rest = [track for track in filtered if track.fold != fold and group_of[track.name] not in test_groups]
    groups = group_by(rest, lambda track: group_of[track.name])
    drawn = _draw(groups, len(tracks.labels), seed=seed, validation=validation, test=0.0)
    return Split(train=drawn.train, validation=drawn.validation, test=test)


def all_tracks(tracks: TrackSet) -> Split:
    """Return a split that trains on every track; other runs of the recipe must show how accurate the model is."""
    return Split(train=tuple(sorted(track.name for track in tracks.tracks)), validation=(), test=())


def read_split(path: Path, tracks: TrackSet) -> Split:
    """Read a split from a JSON object with lists of track names ``train``, ``validation`` and ``test``.

    Raises:
        DataError: If the file has a different format, or names a track that does not exist or is on two sides.
    """
    try:
        split = TypeAdapter(Split).validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a split: {error}") from error
    names = [*split.train, *split.validation, *split.test]
    known = {track.name for track in tracks.tracks}
    if unknown := [name for name in names if name not in known]:
        raise DataError(f"{path} lists {len(unknown)} tracks that do not exist, such as {unknown[0]}")
    if len(set(names)) < len(names):
        raise DataError(f"{path} lists a track twice")
    return split


def _draw(groups: Sequence[list[Track]], n_labels: int, *, seed: int, validation: float, test: float) -> Split:
    """Assign groups of tracks to the three sides, genre by genre, until each side has its share."""
    rng = np.random.default_rng(seed)
    sides: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for genre in range(n_labels):
        # A group counts towards the genre of its first track: metal.00058 and rock.00016 are the same recording.
        own = [group for group in groups if group[0].genre == genre]
        rng.shuffle(own)
        n_tracks = sum(map(len, own))
        missing = {"test": round(test * n_tracks), "validation": round(validation * n_tracks)}
        for group in own:
            side = next((side for side, n in missing.items() if n >= len(group)), "train")
            missing[side] = missing.get(side, 0) - len(group)
            sides[side].extend(track.name for track in group)
    return Split(*(tuple(sorted(sides[side])) for side in ("train", "validation", "test")))
