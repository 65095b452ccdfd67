"""Labelled tracks: the log-mel frames of whole recordings, and which of them must stay on one side of a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wholetrack_training.errors import DataError


@dataclass(frozen=True, slots=True)
class Track:
    """One labelled recording.

    Attributes:
        name: Unique in its set, such as ``blues.00000``.
        genre: Index into the labels of the set.
        frames: Log-mel values in dB, lowest band first, ``[n_frames, n_mels]``.
        artist: All tracks of one artist stay on one side of an artist-filtered split. None if unknown.
        fold: Artist-filtered fold, counted from 1. None for a track that this protocol leaves out.
        duplicate_of: Name of another track with the same recording.
        audio: Path of the recording relative to the data set, if there is one.
        versions: Frames of augmented copies of the recording (:mod:`.audio_augmentation`), each
            ``[n_frames, n_mels]``. They are used for training only, never for evaluation.
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
    """Labelled tracks and the names of their genres.

    Attributes:
        labels: Genres in label order.
        tracks: The tracks; ``genre`` of each is an index into ``labels``.
    """

    labels: tuple[str, ...]
    tracks: tuple[Track, ...]

    def __len__(self) -> int:
        """Return the number of tracks."""
        return len(self.tracks)

    def named(self, names: Sequence[str]) -> TrackSet:
        """Return the tracks called ``names``, in that order.

        Raises:
            DataError: If a name is not in the set.
        """
        by_name = {track.name: track for track in self.tracks}
        if missing := [name for name in names if name not in by_name]:
            raise DataError(f"{len(missing)} tracks are missing from the data set, such as {missing[0]}")
        return TrackSet(self.labels, tuple(by_name[name] for name in names))
