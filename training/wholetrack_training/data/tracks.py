"""Sets of labelled tracks: each the log-mel frames of a whole recording, and what must not straddle a split."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# gtzan-mel.npz spreads each clip's own range over 256 levels; that range is 80 dB (librosa's top_db) for most clips.
_PRECOMPUTED_RANGE_DB = 80.0
_PRECOMPUTED_LEVELS = 256


class DataError(Exception):
    """A data set cannot be used as it is; the message says why."""


@dataclass(frozen=True, slots=True)
class Track:
    """One labelled recording.

    Attributes:
        name: unique in its set, such as ``blues.00000``.
        genre: index into the labels of the set.
        frames: log-mel values in dB, lowest band first, ``[n_frames, n_mels]``.
        artist: whoever must not be on two sides of an artist-filtered split; None where unknown.
        fold: artist-filtered fold, counted from 1; None for a track that this protocol leaves out.
        duplicate_of: the name of the same recording under another name.
        audio: path of the recording relative to the data set, where there is one.
        versions: frames of the recording heard otherwise (:mod:`.audio_augmentation`): learned from, never judged by.
    """

    name: str
    genre: int
    frames: NDArray[np.float32]
    artist: str | None = None
    fold: int | None = None
    duplicate_of: str | None = None
    audio: str | None = None
    versions: tuple[NDArray[np.float32], ...] = ()


@dataclass(frozen=True, slots=True)
class TrackSet:
    """Labelled tracks and the names of their genres, in label order."""

    labels: tuple[str, ...]
    tracks: tuple[Track, ...]

    def __len__(self) -> int:
        """Number of tracks."""
        return len(self.tracks)

    def take(self, indices: Iterable[int]) -> TrackSet:
        """The tracks at ``indices``, in that order."""
        return TrackSet(self.labels, tuple(self.tracks[i] for i in indices))

    def named(self, names: Sequence[str]) -> TrackSet:
        """The tracks called ``names``, in that order.

        Raises:
            DataError: if a name is not in the set.
        """
        by_name = {track.name: track for track in self.tracks}
        if missing := [name for name in names if name not in by_name]:
            raise DataError(f"{len(missing)} tracks are no longer there, such as {missing[0]}")
        return TrackSet(self.labels, tuple(by_name[name] for name in names))


def load_precomputed(npz: Path, table: Path) -> TrackSet:
    """Read spectrograms that somebody computed before, with the table of their artists, folds and duplicates.

    Args:
        npz: arrays ``mel`` uint8 ``[n_tracks, n_mels, n_frames]``, ``track`` and ``genre``.
        table: columns ``track, genre, artist, fold, duplicate_of, audio``.

    Returns:
        Tracks whose frames are in dB relative to the clip's maximum, 80 dB over the 256 levels.
    """
    with table.open(newline="") as file:
        rows = {row["track"]: row for row in csv.DictReader(file)}
    with np.load(npz, allow_pickle=False) as arrays:
        mel, names, genres = arrays["mel"], arrays["track"].tolist(), arrays["genre"].tolist()
    labels = tuple(sorted(set(genres)))
    scale = np.float32(_PRECOMPUTED_RANGE_DB / _PRECOMPUTED_LEVELS)
    tracks = []
    for levels, name, genre in zip(mel, names, genres, strict=True):
        row = rows[name]
        tracks.append(
            Track(
                name=name,
                genre=labels.index(genre),
                frames=np.ascontiguousarray(levels.T).astype(np.float32) * scale - np.float32(_PRECOMPUTED_RANGE_DB),
                artist=row["artist"] or None,
                fold=int(row["fold"]) if row["fold"] else None,
                duplicate_of=row["duplicate_of"] or None,
                audio=row["audio"] or None,
            )
        )
    return TrackSet(labels, tuple(tracks))
