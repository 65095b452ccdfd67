"""Who learns from which tracks and is judged on which: by track at random, or with no artist on two sides.

Every split keeps exact duplicates together, stratifies by genre, and is a function of its seed alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from training.tracks import Track, TrackSet


@dataclass(frozen=True, slots=True)
class Split:
    """Names of the tracks to train on, to stop early by, and to judge by."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


def random_split(tracks: TrackSet, *, seed: int, validation: float = 0.1, test: float = 0.1) -> Split:
    """Divide by track, as the authors of the four published systems did.

    Args:
        tracks: the whole set.
        seed: of the shuffle.
        validation: share of each genre's tracks to stop early by.
        test: share of each genre's tracks to judge by.
    """
    groups = _same_recording(tracks.tracks)
    return _draw(groups, len(tracks.labels), seed=seed, validation=validation, test=test, hold_out=set())


def held_out_split(tracks: TrackSet, hold_out: Collection[str], *, seed: int, validation: float = 0.1) -> Split:
    """Judge by certain tracks and learn from all others.

    Args:
        tracks: the whole set.
        hold_out: names of the tracks to judge by.
        seed: of the choice of validation tracks.
        validation: share of each genre's tracks to stop early by.

    Raises:
        ValueError: if nothing is left to learn from.
    """
    groups = _same_recording(tracks.tracks)
    split = _draw(groups, len(tracks.labels), seed=seed, validation=validation, test=0.0, hold_out=set(hold_out))
    if not split.train:
        raise ValueError("every track is held out: there is nothing to learn from")
    return split


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
    rest = [track for track in filtered if track.fold != fold]
    groups = _groups(rest, lambda track: (track.genre, track.artist) if track.artist else track.name)
    drawn = _draw(groups, len(tracks.labels), seed=seed, validation=validation, test=0.0, hold_out=set())
    return Split(train=drawn.train, validation=drawn.validation, test=judged)


def _recordings(tracks: Sequence[Track]) -> dict[str, str]:
    """For each track a name that it shares with all its duplicates, found by uniting every pair in the table."""
    leader = {track.name: track.name for track in tracks}

    def find(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    for track in tracks:
        if track.duplicate_of in leader:
            leader[find(track.name)] = find(track.duplicate_of)
    return {track.name: find(track.name) for track in tracks}


def _same_recording(tracks: Sequence[Track]) -> list[list[Track]]:
    recording = _recordings(tracks)
    return _groups(tracks, lambda track: recording[track.name])


def _groups(tracks: Sequence[Track], key: Callable[[Track], Hashable]) -> list[list[Track]]:
    groups: dict[Hashable, list[Track]] = defaultdict(list)
    for track in tracks:
        groups[key(track)].append(track)
    return list(groups.values())


def _draw(
    groups: Sequence[list[Track]], n_labels: int, *, seed: int, validation: float, test: float, hold_out: set[str]
) -> Split:
    """Deal groups of tracks to the three sides, genre by genre, until each has its share."""
    rng = np.random.default_rng(seed)
    sides: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for genre in range(n_labels):
        # A group belongs to the genre of its first track (metal.00058 and rock.00016 are one recording).
        own = [group for group in groups if group[0].genre == genre]
        rng.shuffle(own)
        own.sort(key=lambda group: not any(track.name in hold_out for track in group))
        n_tracks = sum(map(len, own))
        wanted = {"test": round(test * n_tracks), "validation": round(validation * n_tracks)}
        for group in own:
            held = any(track.name in hold_out for track in group)
            side = "test" if held else next((s for s, n in wanted.items() if n >= len(group)), "train")
            wanted[side] = wanted.get(side, 0) - len(group)
            sides[side].extend(track.name for track in group)
    return Split(*(tuple(sorted(sides[side])) for side in ("train", "validation", "test")))
