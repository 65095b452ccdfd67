"""Assignment of tracks to artist-filtered folds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

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
