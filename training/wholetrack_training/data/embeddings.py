"""Embeddings of the recordings in a folder of genres, computed by the service's own pipeline and cached."""

from __future__ import annotations

import hashlib
import logging
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from wholetrack.contracts import Detail, ModelCard, unit_length
from wholetrack.errors import ServiceError
from wholetrack.pipeline import Pipeline
from wholetrack.settings import available_cpus
from wholetrack_training.data.extraction import Recording
from wholetrack_training.errors import DataError
from wholetrack_training.files import write_npz

_log = logging.getLogger(__name__)

_MAX_TRACK_S = 4 * 3600.0
# The same windows in batches of different sizes differ by 1e-7.
_SAME_SOUND = 1e-5


@dataclass(frozen=True, slots=True)
class EmbeddedTrack:
    """The embedding of one labelled recording.

    Attributes:
        name: Path relative to the data set, such as ``jazz/take-five.flac``.
        genre: Name of its genre.
        windows: Vector of unit length for each window with sound, ``[n_windows, length]``.
        artist: Its artist; None if unknown.
        duplicate_of: Name of an earlier track with exactly the same sound.
    """

    name: str
    genre: str
    windows: NDArray[np.float32]
    artist: str | None = None
    duplicate_of: str | None = None

    @property
    def mean(self) -> NDArray[np.float32]:
        """Mean of the windows, scaled to unit length, ``[length]``."""
        return unit_length(self.windows.mean(axis=0, dtype=np.float64).astype(np.float32))


@dataclass(frozen=True, slots=True)
class EmbeddedFolder:
    """The usable recordings of a folder, and why the others cannot be used.

    Attributes:
        tracks: The usable ones.
        left_out: Reason for each of the others, by name.
    """

    tracks: tuple[EmbeddedTrack, ...]
    left_out: Mapping[str, str]


def embed_recordings(
    recordings: Sequence[Recording], pipeline: Pipeline, *, artists: Mapping[str, str | None], cache: Path
) -> EmbeddedFolder:
    """Return the embeddings of recordings, and show a progress bar on stderr.

    Recordings that cannot be decoded or are silent are left out with a warning. An interrupted call can be repeated.

    Args:
        recordings: The recordings.
        pipeline: A pipeline whose default model yields an embedding.
        artists: Artists by the names of the recordings.
        cache: Folder for the embeddings; created if missing.

    Raises:
        DataError: If the cache cannot be written.
        ServiceError: If the device fails.
    """
    store = _Store(cache, pipeline.model(None).card)
    with ThreadPoolExecutor(available_cpus()) as pool:
        try:
            found = pool.map(lambda recording: _embed(recording, pipeline, store), recordings)
            console = Console(stderr=True)
            embedded = list(track(found, "embeddings", len(recordings), console=console, transient=True))
        except OSError as error:
            raise DataError(f"the embeddings cannot be stored in {cache}: {error.strerror}") from error
        finally:
            pool.shutdown(cancel_futures=True)
    left_out = {
        recording.name: entry for recording, entry in zip(recordings, embedded, strict=True) if isinstance(entry, str)
    }
    for name, reason in left_out.items():
        _log.warning("Leaving out %s: %s", name, reason)
    tracks = [
        EmbeddedTrack(recording.name, recording.genre, entry, artists.get(recording.name))
        for recording, entry in zip(recordings, embedded, strict=True)
        if not isinstance(entry, str)
    ]
    return EmbeddedFolder(_with_duplicates(tracks), left_out)


def _with_duplicates(tracks: Sequence[EmbeddedTrack]) -> tuple[EmbeddedTrack, ...]:
    """Mark tracks with the same embedding as an earlier one, which therefore have the same sound."""
    if not tracks:
        return ()
    means = np.stack([each.mean for each in tracks])
    marked = []
    for i, each in enumerate(tracks):
        same = np.flatnonzero(np.abs(means[:i] - means[i]).max(axis=1, initial=0.0) < _SAME_SOUND)
        original = tracks[same[0]].name if len(same) else None
        marked.append(EmbeddedTrack(each.name, each.genre, each.windows, each.artist, original))
    return tuple(marked)


def _embed(recording: Recording, pipeline: Pipeline, store: _Store) -> NDArray[np.float32] | str:
    """Return the embeddings of the windows of a recording, or why there are none."""
    try:
        key = store.key(recording)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    cached = store.get(key)
    if cached is not None:
        return cached
    try:
        found = pipeline.predict(
            recording.path, tags=Detail.NONE, embedding=Detail.WINDOWS, max_duration_s=_MAX_TRACK_S
        ).embedding
    except ServiceError as error:
        if error.kind.status >= 500:
            raise
        return f"{error.kind.code}: {error.detail}"
    assert found
    if found.track is None or found.windows is None:
        return "it is silent"
    store.put(key, found.windows)
    return found.windows


class _Store:
    """Embeddings of recordings on disk.

    Args:
        folder: The folder.
        card: Contract of the model that computes the embeddings.
    """

    def __init__(self, folder: Path, card: ModelCard) -> None:
        self._folder = folder
        parts = (card.audio, card.windows, *card.inputs)
        self._model = "\n".join((card.sha256, *(part.model_dump_json() for part in parts)))

    def key(self, recording: Recording) -> Path:
        """Return the file for a recording in its present state.

        Raises:
            OSError: If the recording cannot be read.
        """
        status = recording.path.stat()
        identity = f"{self._model}\n{recording.name}\n{status.st_size} {status.st_mtime_ns}"
        return self._folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.npz"

    def get(self, key: Path) -> NDArray[np.float32] | None:
        """Return what is stored in a file; None if there is nothing, or it is damaged."""
        try:
            with np.load(key, allow_pickle=False) as entry:
                return np.asarray(entry["windows"], dtype=np.float32)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def put(self, key: Path, windows: NDArray[np.float32]) -> None:
        """Store embeddings.

        Raises:
            OSError: If the file cannot be written.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        write_npz(key, {"windows": windows})
