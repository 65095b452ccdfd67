"""Groups of tracks that must stay on the same side of a split: duplicates, and tracks of one artist."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Protocol

from wholetrack_training.data.tracks import Track


class Groupable(Protocol):
    """What decides which tracks belong together; see :class:`.Track`."""

    @property
    def name(self) -> str:
        """Name of the track."""

    @property
    def artist(self) -> str | None:
        """Its artist; None if unknown."""

    @property
    def duplicate_of(self) -> str | None:
        """Name of another track with the same recording."""


def recording_of(tracks: Sequence[Groupable]) -> dict[str, str]:
    """Map the name of each track to a name that it shares with all its duplicates."""
    return _connected(tracks, _duplicates(tracks))


def artist_group_of(tracks: Sequence[Groupable]) -> dict[str, str]:
    """Map the name of each track to a name that it shares with its duplicates and all tracks of their artists.

    Genres do not matter: an artist with tracks in two genres is still one group.
    """
    first_of: dict[str, str] = {}
    same_artist = [(track.name, first_of.setdefault(track.artist, track.name)) for track in tracks if track.artist]
    return _connected(tracks, [*same_artist, *_duplicates(tracks)])


def group_by(tracks: Sequence[Track], key: Callable[[Track], Hashable]) -> list[list[Track]]:
    """Return the tracks in groups of equal ``key``, groups and tracks in the order of their first appearance."""
    groups: dict[Hashable, list[Track]] = defaultdict(list)
    for track in tracks:
        groups[key(track)].append(track)
    return list(groups.values())


def _duplicates(tracks: Sequence[Groupable]) -> list[tuple[str, str]]:
    return [(track.name, track.duplicate_of) for track in tracks if track.duplicate_of]


def _connected(tracks: Sequence[Groupable], pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return one common name for all tracks connected by ``pairs``; pairs with an unknown track are ignored."""
    parent = {track.name: track.name for track in tracks}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for one, other in pairs:
        if other in parent:
            parent[root(one)] = root(other)
    return {track.name: root(track.name) for track in tracks}
