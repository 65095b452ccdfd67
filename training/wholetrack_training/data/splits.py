"""Who learns from which tracks and is judged on which: by track at random, or with no artist on two sides.

Every split keeps exact duplicates together, stratifies by genre, and is a function of its seed alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from wholetrack_training.data.tracks import DataError, Track, TrackSet


class Protocol(StrEnum):
    """How tracks are divided: at random, with no artist on two sides, not at all, or as somebody wrote down.

    ``all`` keeps nothing to judge by: for a network to be served, whose recipe other runs have judged.
    """

    RANDOM = "random"
    ARTIST_FILTERED = "artist-filtered"
    ALL = "all"
    GIVEN = "given"


@dataclass(frozen=True, slots=True)
class Split:
    """Names of the tracks to train on, to stop early by, and to judge by."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def without_validation(self) -> Split:
        """The same test tracks; all others are learned from."""
        return Split(train=tuple(sorted(self.train + self.validation)), validation=(), test=self.test)


def divide(tracks: TrackSet, protocol: Protocol, part: int) -> Split:
    """The random split or the fold of that number, or all tracks to learn from.

    Raises:
        ValueError: if no track has that fold, or nothing says how to divide.
    """
    match protocol:
        case Protocol.RANDOM:
            return random_split(tracks, seed=part)
        case Protocol.ARTIST_FILTERED:
            return artist_split(tracks, fold=part, seed=part)
        case Protocol.ALL:
            return all_tracks(tracks)
        case Protocol.GIVEN:
            raise ValueError("a given split is in a file: name it with --split")


def random_split(tracks: TrackSet, *, seed: int, validation: float = 0.1, test: float = 0.1) -> Split:
    """Divide by track, as the authors of the four published systems did.

    Args:
        tracks: the whole set.
        seed: of the shuffle.
        validation: share of each genre's tracks to stop early by.
        test: share of each genre's tracks to judge by.
    """
    groups = _same_recording(tracks.tracks)
    return _draw(groups, len(tracks.labels), seed=seed, validation=validation, test=test)


def artist_split(tracks: TrackSet, *, fold: int, seed: int, validation: float = 0.1) -> Split:
    """Judge by one artist-filtered fold and learn from the others; nobody is on two sides, validation included.

    Args:
        tracks: the whole set; tracks without a fold are left out.
        fold: the fold to judge by.
        seed: of the choice of validation artists.
        validation: share of each genre's remaining tracks to stop early by.

    Raises:
        ValueError: if no track has that fold.
    """
    filtered = [track for track in tracks.tracks if track.fold is not None]
    judged = tuple(track.name for track in filtered if track.fold == fold)
    if not judged:
        raise ValueError(f"no track is in fold {fold}")
    together = _united(filtered)
    judged_by = {together[name] for name in judged}
    rest = [track for track in filtered if track.fold != fold and together[track.name] not in judged_by]
    groups = _groups(rest, lambda track: together[track.name])
    drawn = _draw(groups, len(tracks.labels), seed=seed, validation=validation, test=0.0)
    return Split(train=drawn.train, validation=drawn.validation, test=judged)


def all_tracks(tracks: TrackSet) -> Split:
    """Learn from everything, for a network to be served; others of its recipe have to say how good it is."""
    return Split(train=tuple(sorted(track.name for track in tracks.tracks)), validation=(), test=())


def read_split(path: Path, tracks: TrackSet) -> Split:
    """A split that somebody wrote down: a JSON object with lists of names ``train``, ``validation`` and ``test``.

    Raises:
        DataError: if it is no such file, names a track that is not in the set, or one twice.
    """
    try:
        split = TypeAdapter(Split).validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no split: {error}") from error
    names = [*split.train, *split.validation, *split.test]
    known = {track.name for track in tracks.tracks}
    if unknown := [name for name in names if name not in known]:
        raise DataError(f"{path} names {len(unknown)} tracks that are not there, such as {unknown[0]}")
    if len(set(names)) < len(names):
        raise DataError(f"{path} has a track on two sides")
    return split


def deal_folds(tracks: Sequence[Track], *, n_folds: int = 3) -> dict[str, int]:
    """Artist-filtered, stratified folds for tracks that have none: nobody is in two, duplicates stay together.

    Groups of an artist, the largest first, go to the fold that has the fewest tracks of their genre.

    Args:
        tracks: the whole set; tracks without an artist are left out.
        n_folds: how many.

    Returns:
        The fold of each track, counted from 1, by name.

    Raises:
        DataError: if a genre has fewer artists than there are folds.
    """
    named = [track for track in tracks if track.artist is not None]
    together = _united(named)
    groups = _groups(named, lambda track: together[track.name])
    folds: dict[str, int] = {}
    counts: dict[int, list[int]] = defaultdict(lambda: [0] * n_folds)
    dealt: dict[int, set[int]] = defaultdict(set)
    for group in sorted(groups, key=lambda group: (-len(group), group[0].name)):
        genre = group[0].genre
        fold = min(range(n_folds), key=lambda fold: (counts[genre][fold], fold))
        for track in group:
            counts[track.genre][fold] += 1
            dealt[track.genre].add(fold)
            folds[track.name] = fold + 1
    for genre, used in dealt.items():
        if len(used) < n_folds:
            raise DataError(f"genre number {genre + 1} has fewer than {n_folds} artists: too few for folds")
    return folds


def _recordings(tracks: Sequence[Track]) -> dict[str, str]:
    """For each track a name that it shares with all its duplicates."""
    return _leaders(tracks, [(track.name, track.duplicate_of) for track in tracks if track.duplicate_of])


def _united(tracks: Sequence[Track]) -> dict[str, str]:
    """For each track a name that it shares with all tracks of its artist, in any genre, and with their duplicates."""
    first_of: dict[str, str] = {}
    pairs = [(track.name, first_of.setdefault(track.artist, track.name)) for track in tracks if track.artist]
    return _leaders(tracks, pairs + [(track.name, track.duplicate_of) for track in tracks if track.duplicate_of])


def _leaders(tracks: Sequence[Track], pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """One name for all tracks that pairs connect; pairs with a track that is not there count for nothing."""
    leader = {track.name: track.name for track in tracks}

    def find(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    for one, other in pairs:
        if other in leader:
            leader[find(one)] = find(other)
    return {track.name: find(track.name) for track in tracks}


def _same_recording(tracks: Sequence[Track]) -> list[list[Track]]:
    recording = _recordings(tracks)
    return _groups(tracks, lambda track: recording[track.name])


def _groups(tracks: Sequence[Track], key: Callable[[Track], Hashable]) -> list[list[Track]]:
    groups: dict[Hashable, list[Track]] = defaultdict(list)
    for track in tracks:
        groups[key(track)].append(track)
    return list(groups.values())


def _draw(groups: Sequence[list[Track]], n_labels: int, *, seed: int, validation: float, test: float) -> Split:
    """Deal groups of tracks to the three sides, genre by genre, until each has its share."""
    rng = np.random.default_rng(seed)
    sides: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for genre in range(n_labels):
        # A group belongs to the genre of its first track (metal.00058 and rock.00016 are one recording).
        own = [group for group in groups if group[0].genre == genre]
        rng.shuffle(own)
        n_tracks = sum(map(len, own))
        wanted = {"test": round(test * n_tracks), "validation": round(validation * n_tracks)}
        for group in own:
            side = next((s for s, n in wanted.items() if n >= len(group)), "train")
            wanted[side] = wanted.get(side, 0) - len(group)
            sides[side].extend(track.name for track in group)
    return Split(*(tuple(sorted(sides[side])) for side in ("train", "validation", "test")))
