"""Tracks from precomputed spectrograms: an ``.npz`` file such as ``gtzan-mel.npz``, and a table of its tracks."""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wholetrack_training.data.tracks import Track, TrackSet
from wholetrack_training.errors import DataError

# gtzan-mel.npz spreads the range of each clip over 256 levels. For most clips that range is 80 dB (librosa's top_db).
_RANGE_DB = 80.0
_LEVELS = 256


def load_precomputed(npz: Path, table: Path) -> TrackSet:
    """Read precomputed spectrograms, and the artists, folds and duplicates of their tracks.

    Args:
        npz: Arrays ``mel`` (uint8, ``[n_tracks, n_mels, n_frames]``), ``track`` and ``genre``.
        table: CSV with the columns ``track, genre, artist, fold, duplicate_of, audio``.

    Returns:
        Tracks whose frames are in dB relative to the maximum of the clip, 80 dB over the 256 levels.

    Raises:
        DataError: If a file is missing, damaged, or has a different layout.
    """
    try:
        with table.open(newline="") as text:
            rows = {row["track"]: row for row in csv.DictReader(text)}
        with npz.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            mel, names, genres = arrays["mel"], arrays["track"].tolist(), arrays["genre"].tolist()
        labels = tuple(sorted(set(genres)))
        tracks = tuple(
            _track(levels, labels.index(genre), rows[name])
            for levels, name, genre in zip(mel, names, genres, strict=True)
        )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{npz} with the table {table} is not a set of precomputed spectrograms: {error}") from error
    return TrackSet(labels, tracks)


def _track(levels: NDArray[np.uint8], genre: int, row: dict[str, str]) -> Track:
    scale = np.float32(_RANGE_DB / _LEVELS)
    return Track(
        name=row["track"],
        genre=genre,
        frames=np.ascontiguousarray(levels.T).astype(np.float32) * scale - np.float32(_RANGE_DB),
        artist=row["artist"] or None,
        fold=int(row["fold"]) if row["fold"] else None,
        duplicate_of=row["duplicate_of"] or None,
        audio=row["audio"] or None,
    )
