"""From a folder of recordings per genre to labelled tracks: ``<root>/<genre>/<track>.<any audio format>``.

Beside the recordings may lie ``<root>/tracks.csv`` with the columns ``track`` (``<genre>/<file>``), ``artist``, and, if
somebody has dealt them already, ``fold``.
"""

from __future__ import annotations

import csv
import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text
from threadpoolctl import threadpool_limits

from wholetrack.contracts import AudioSpec, FeatureSpec
from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack.errors import ServiceError
from wholetrack.features.logmel import LogMel
from wholetrack.settings import available_cpus
from wholetrack_training.data.audio_augmentation import VERSIONS, pieces
from wholetrack_training.data.cache import FeatureCache, Heard
from wholetrack_training.data.splits import deal_folds
from wholetrack_training.data.tracks import DataError, Track, TrackSet

_log = logging.getLogger(__name__)

LEFT_OUT = "left-out.csv"
_TABLE = "tracks.csv"
# A phase vocoder holds the whole spectrum of what it is given.
_PIECE_S = 60
_LONGEST_TRACK_S = 4 * 3600.0
_NO_FRAMES = np.zeros((0, 0), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class _Recording:
    name: str
    genre: str
    path: Path


def load_folder(
    root: Path,
    *,
    audio: AudioSpec,
    features: FeatureSpec,
    decoder: FfmpegDecoder,
    cache: Path,
    versions: Sequence[str] = (),
) -> TrackSet:
    """Read all recordings below ``root``, of any length and any format that the service accepts.

    Features are those that the service computes, and are kept in ``cache``: a second call reads what the first one
    wrote, and one that was killed goes on where it was. A recording that cannot be heard, or is silent, is left out
    and listed in ``<cache>/left-out.csv`` with the reason. Of recordings with exactly the same sound the later ones
    are marked as duplicates of the first.

    Args:
        root: the folder of genres.
        audio: of the recipe.
        features: of the recipe.
        decoder: opens the files.
        cache: folder for features and the list; made if need be.
        versions: which changed copies of every recording are to be learned from as well.

    Raises:
        DataError: if there are fewer than two genres, a genre without a recording that can be used, a table that
            does not fit, or no room in the cache.
    """
    recordings = _recordings(root)
    artists = _artists(root, {recording.name for recording in recordings})
    store = FeatureCache(cache, audio, features)
    store.sweep()
    try:
        hearing = _Hearing(LogMel(features, audio.sample_rate), decoder, store)
        heard = hearing.all(recordings)
        _list_refusals(cache / LEFT_OUT, recordings, heard)
        usable = [(recording, found) for recording, found in zip(recordings, heard, strict=True) if not found.refusal]
        others = [hearing.all([recording for recording, _ in usable], version) for version in versions]
    except OSError as error:
        raise DataError(f"the features cannot be kept in {cache}: {error.strerror}") from error
    labels = tuple(sorted({recording.genre for recording in recordings}))
    for genre in labels:
        if not any(recording.genre == genre for recording, _ in usable):
            raise DataError(f"no recording of the genre {genre} can be used: {cache / LEFT_OUT} says why")
    first_with: dict[str, str] = {}
    tracks = []
    for (recording, found), *copies in zip(usable, *others, strict=True):
        original = first_with.setdefault(found.digest, recording.name)
        artist, fold = artists.get(recording.name, (None, None))
        tracks.append(
            Track(
                name=recording.name,
                genre=labels.index(recording.genre),
                frames=found.frames,
                artist=artist,
                fold=fold,
                duplicate_of=None if original == recording.name else original,
                audio=recording.name,
                versions=tuple(copy.frames for copy in copies if not copy.refusal),
            )
        )
    return TrackSet(labels, _with_folds(tracks))


def _recordings(root: Path) -> list[_Recording]:
    genres = sorted(folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    if len(genres) < 2:
        raise DataError(f"{root} must hold at least two folders, each of a genre, with recordings in them")
    found = []
    for genre in genres:
        files = sorted(file for file in genre.rglob("*") if file.is_file() and not file.name.startswith("."))
        if not files:
            raise DataError(f"the folder of the genre {genre.name} is empty")
        found += [_Recording(file.relative_to(root).as_posix(), genre.name, file) for file in files]
    return found


def _artists(root: Path, names: set[str]) -> Mapping[str, tuple[str | None, int | None]]:
    table = root / _TABLE
    if not table.is_file():
        return {}
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if rows and not {"track", "artist"} <= set(rows[0]):
        raise DataError(f"{table} must have the columns track and artist")
    if unknown := [row["track"] for row in rows if row["track"] not in names]:
        raise DataError(f"{table} names {len(unknown)} tracks that are not there, such as {unknown[0]}")
    try:
        return {row["track"]: (row["artist"] or None, int(row["fold"]) if row.get("fold") else None) for row in rows}
    except ValueError as error:
        raise DataError(f"{table} has a fold that is no number: {error}") from error


def _with_folds(tracks: list[Track]) -> tuple[Track, ...]:
    if all(track.artist is None for track in tracks) or any(track.fold is not None for track in tracks):
        return tuple(tracks)
    folds = deal_folds(tracks)
    return tuple(replace(track, fold=folds.get(track.name)) for track in tracks)


@dataclass(frozen=True, slots=True)
class _Hearing:
    """From recordings to their frames, by way of the cache."""

    features: LogMel
    decoder: FfmpegDecoder
    store: FeatureCache

    def all(self, recordings: Sequence[_Recording], version: str | None = None) -> list[Heard]:
        """All recordings, or one changed copy of each, side by side."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
        with (
            # A matrix product on two threads has other last bits than on one; the files are what runs side by side.
            threadpool_limits(1, "blas"),
            Progress(*columns, console=Console(stderr=True), transient=True) as progress,
            ThreadPoolExecutor(available_cpus()) as pool,
        ):
            try:
                heard = pool.map(lambda recording: self._one(recording, version), recordings)
                return list(progress.track(heard, len(recordings), description=version or "features"))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _one(self, recording: _Recording, version: str | None) -> Heard:
        name = f"{recording.name} {version}" if version else recording.name
        known = self.store.get(name, recording.path)
        if known is not None:
            return known
        try:
            found = self._hear(recording.path, version)
        except OSError as error:
            return Heard(_NO_FRAMES, "", f"it cannot be read: {error.strerror}")
        except ServiceError as error:
            found = Heard(_NO_FRAMES, "", f"{error.kind.code}: {error.detail}")
            if error.kind.status >= 500:  # ffmpeg died; next time it may live
                return found
        self.store.put(name, recording.path, found)
        return found

    def _hear(self, recording: Path, version: str | None) -> Heard:
        stream, digest, frames = self.features.stream(), hashlib.sha256(), []
        for samples in self._sound(recording, version):
            digest.update(samples.tobytes())
            frames.append(stream.push(samples))
        frames.append(stream.finish())
        joined = np.concatenate(frames)
        if not joined.max() > self.features.silence:
            return Heard(_NO_FRAMES, "", "it is silent")
        return Heard(joined, digest.hexdigest())

    def _sound(self, recording: Path, version: str | None) -> Iterator[NDArray[np.float32]]:
        """Mono samples, block by block; of a changed copy a minute at a time."""
        rate = self.features.grid.sample_rate
        with self.decoder.open(recording, sample_rate=rate, max_duration_s=_LONGEST_TRACK_S) as decoding:
            if version is None:
                yield from decoding.blocks()
            else:
                yield from (VERSIONS[version](piece, rate) for piece in pieces(decoding.blocks(), rate * _PIECE_S))
            decoding.summary()


class _Rate(ProgressColumn):
    """Recordings per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "")


def _list_refusals(path: Path, recordings: Iterable[_Recording], heard: Iterable[Heard]) -> None:
    refused = [
        (recording.name, found.refusal) for recording, found in zip(recordings, heard, strict=True) if found.refusal
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("track", "reason"), *refused])
    for name, reason in refused:
        _log.warning("%s is left out: %s", name, reason)
