"""Assignment of tracks to artist-filtered folds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from wholetrack_training.data.groups import artist_group_of, group_by
from wholetrack_training.data.tracks import Track
from wholetrack_training.errors import DataError


def assign_folds(tracks: Sequence[Track], *, n_folds: int = 3) -> dict[str, int]:
    """Assign tracks to stratified folds so that no artist is in two of them and duplicates stay together.

    Starting with the largest, each group of tracks that belong together goes to the fold with the fewest tracks of
    its genre.

    Args:
        tracks: The whole set; tracks without an artist are left out.
        n_folds: Number of folds.

    Returns:
        The fold of each track, counted from 1, by name.

    Raises:
        DataError: If a genre has fewer artists than there are folds.
    """
    named = [track for track in tracks if track.artist is not None]
    group_of = artist_group_of(named)
    groups = group_by(named, lambda track: group_of[track.name])
    folds: dict[str, int] = {}
    counts: dict[int, list[int]] = defaultdict(lambda: [0] * n_folds)
    used: dict[int, set[int]] = defaultdict(set)
    for group in sorted(groups, key=lambda group: (-len(group), group[0].name)):
        genre = group[0].genre
        fold = min(range(n_folds), key=lambda fold: (counts[genre][fold], fold))
        for track in group:
            counts[track.genre][fold] += 1
            used[track.genre].add(fold)
            folds[track.name] = fold + 1
    for genre, folds_of_genre in used.items():
        if len(folds_of_genre) < n_folds:
            raise DataError(f"genre number {genre + 1} has fewer than {n_folds} artists, too few for {n_folds} folds")
    return folds


def balanced_folds(groups: Sequence[Hashable], genres: NDArray[np.int_], *, n_folds: int) -> list[NDArray[np.int_]]:
    """Divide tracks into folds of similar size and similar genres; tracks of one group are in the same fold.

    Args:
        groups: Group of each track, such as its artist.
        genres: Genre of each track, ``[n_tracks]``.
        n_folds: Number of folds; more than there are groups for one fold per group.

    Returns:
        Indices of the tracks in each fold, in ascending order; no fold is empty.
    """
    members: dict[Hashable, list[int]] = defaultdict(list)
    for track, group in enumerate(groups):
        members[group].append(track)
    n_folds = min(n_folds, len(members))
    counts = np.zeros((n_folds, int(genres.max()) + 1), dtype=np.int_)
    folds: list[list[int]] = [[] for _ in range(n_folds)]
    for tracks in sorted(members.values(), key=lambda tracks: (-len(tracks), tracks[0])):
        of_genre = counts[:, genres[tracks[0]]]
        fold = min(range(n_folds), key=lambda fold: (of_genre[fold], len(folds[fold])))
        folds[fold] += tracks
        np.add.at(counts[fold], genres[tracks], 1)
    return [np.array(sorted(fold)) for fold in folds if fold]
