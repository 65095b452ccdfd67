"""Labelled tracks from a folder of recordings per genre: ``<root>/<genre>/<track>.<any audio format>``.

An optional table ``<root>/tracks.csv`` has the columns ``track`` (``<genre>/<file>``), ``artist`` and, if folds have
been assigned already, ``fold``.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from wholetrack.contracts import AudioSpec, FeatureSpec
from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack.features.logmel import LogMel
from wholetrack_training.data.cache import FeatureCache, RecordingFeatures
from wholetrack_training.data.extraction import FeatureExtractor, Recording
from wholetrack_training.data.folds import assign_folds
from wholetrack_training.data.tracks import Track, TrackSet
from wholetrack_training.errors import DataError

_log = logging.getLogger(__name__)

REJECTED = "left-out.csv"
"""File in the cache folder that lists the recordings that cannot be used, with the reason."""
TABLE = "tracks.csv"
"""File in the data set that names the artists."""


def load_folder(
    root: Path,
    *,
    audio: AudioSpec,
    features: FeatureSpec,
    decoder: FfmpegDecoder,
    cache: Path,
    versions: Sequence[str] = (),
) -> TrackSet:
    """Read all recordings below ``root``, of any length and in any format that the service accepts.

    The features are the same as those of the service. They are kept in ``cache``, so a second call only reads them,
    and a call that was interrupted can be repeated. A recording that cannot be decoded or is silent is left out and
    listed in ``<cache>/left-out.csv`` with the reason. If several recordings have exactly the same sound, all but the
    first are marked as its duplicates.

    Args:
        root: The folder of genres.
        audio: Sample rate, from the recipe.
        features: Feature parameters, from the recipe.
        decoder: Decodes the files.
        cache: Folder for the features and the list; created if missing.
        versions: Names of augmented copies to make of every recording (:data:`.audio_augmentation.VERSIONS`).

    Raises:
        DataError: If there are fewer than two genres, a genre has no usable recording, the table does not match the
            recordings, or the cache cannot be written.
    """
    recordings = find_recordings(root)
    table, names = root / TABLE, {recording.name for recording in recordings}
    artists = read_table(table, names) if table.is_file() else {}
    store = FeatureCache(cache, audio, features)
    store.remove_unfinished()
    try:
        extractor = FeatureExtractor(LogMel(features, audio.sample_rate), decoder, store)
        found = extractor.extract(recordings)
        _list_rejected(cache / REJECTED, recordings, found)
        usable = [pair for pair in zip(recordings, found, strict=True) if not pair[1].rejection]
        copies = [extractor.extract([recording for recording, _ in usable], version) for version in versions]
    except OSError as error:
        raise DataError(f"the features cannot be stored in {cache}: {error.strerror}") from error
    labels = tuple(sorted({recording.genre for recording in recordings}))
    for genre in labels:
        if not any(recording.genre == genre for recording, _ in usable):
            raise DataError(f"no recording of the genre {genre} can be used; see {cache / REJECTED} for the reasons")
    first_with: dict[str, str] = {}
    tracks = []
    for (recording, own), *versions_of in zip(usable, *copies, strict=True):
        original = first_with.setdefault(own.digest, recording.name)
        artist, fold = artists.get(recording.name, (None, None))
        tracks.append(
            Track(
                name=recording.name,
                genre=labels.index(recording.genre),
                frames=own.frames,
                artist=artist,
                fold=fold,
                duplicate_of=None if original == recording.name else original,
                audio=recording.name,
                versions=tuple(copy.frames for copy in versions_of if not copy.rejection),
            )
        )
    return TrackSet(labels, _with_folds(tracks))


def find_recordings(root: Path) -> list[Recording]:
    """Return all files below the folders of the genres.

    Raises:
        DataError: If there are fewer than two genres, or a folder is empty.
    """
    genres = sorted(folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    if len(genres) < 2:
        raise DataError(f"{root} must contain at least two folders, one per genre, with recordings in them")
    found = []
    for genre in genres:
        files = sorted(file for file in genre.rglob("*") if file.is_file() and not file.name.startswith("."))
        if not files:
            raise DataError(f"the folder of the genre {genre.name} is empty")
        found += [Recording(file.relative_to(root).as_posix(), genre.name, file) for file in files]
    return found


def read_table(table: Path, names: set[str]) -> Mapping[str, tuple[str | None, int | None]]:
    """Return the artist and the fold of every track in a table, by name.

    Args:
        table: The file.
        names: Names of all tracks.

    Raises:
        DataError: If the table does not match the tracks.
    """
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if rows and not {"track", "artist"} <= set(rows[0]):
        raise DataError(f"{table} must have the columns track and artist")
    if unknown := [row["track"] for row in rows if row["track"] not in names]:
        raise DataError(f"{table} lists {len(unknown)} tracks that do not exist, such as {unknown[0]}")
    try:
        return {row["track"]: (row["artist"] or None, int(row["fold"]) if row.get("fold") else None) for row in rows}
    except ValueError as error:
        raise DataError(f"{table} has a fold that is not a number: {error}") from error


def _with_folds(tracks: list[Track]) -> tuple[Track, ...]:
    if all(track.artist is None for track in tracks) or any(track.fold is not None for track in tracks):
        return tuple(tracks)
    folds = assign_folds(tracks)
    return tuple(replace(track, fold=folds.get(track.name)) for track in tracks)


def _list_rejected(path: Path, recordings: Iterable[Recording], found: Iterable[RecordingFeatures]) -> None:
    rejected = [
        (recording.name, own.rejection) for recording, own in zip(recordings, found, strict=True) if own.rejection
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("track", "reason"), *rejected])
    for name, reason in rejected:
        _log.warning("Leaving out %s: %s", name, reason)
