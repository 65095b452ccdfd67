"""Embeddings and tags of the recordings in a folder of genres, computed by the service's own pipeline and cached."""

from __future__ import annotations

import hashlib
import logging
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from wholetrack.contracts import Detail, HeadInput, ModelCard, Rows, TaxonomySpec, unit_length
from wholetrack.errors import ServiceError
from wholetrack.inference.head import head_windows
from wholetrack.observer import Observer
from wholetrack.pipeline import Pipeline
from wholetrack.settings import available_cpus
from wholetrack_training.data.extraction import Recording
from wholetrack_training.errors import DataError
from wholetrack_training.files import opened_npz, write_npz

_log = logging.getLogger(__name__)

_MAX_TRACK_S = 4 * 3600.0
# The same windows in batches of different sizes differ by 1e-7.
_SAME_SOUND = 1e-5


@dataclass(frozen=True, slots=True)
class EmbeddedTrack:
    """What a head uses of one labelled recording.

    Attributes:
        name: Path relative to the data set, such as ``jazz/take-five.flac``.
        genre: Name of its genre.
        windows: For each window with sound the embedding of unit length and the logits of the tags, as far as the
            head uses them, ``[n_windows, length]``.
        artist: Its artist; None if unknown.
        duplicate_of: Name of an earlier track with exactly the same sound.
    """

    name: str
    genre: str
    windows: NDArray[np.float32]
    artist: str | None = None
    duplicate_of: str | None = None


@dataclass(frozen=True, slots=True)
class EmbeddedFolder:
    """The usable recordings of a folder, and why the others cannot be used.

    Attributes:
        tracks: The usable ones.
        left_out: Reason for each of the others, by name.
    """

    tracks: tuple[EmbeddedTrack, ...]
    left_out: Mapping[str, str]


class _OutputCollector(Observer):
    """Collects what the network returns for the windows with sound of one track."""

    def __init__(self) -> None:
        self._parts: dict[int, Rows] = {}

    def started(self, card: ModelCard, hop_s: float, taxonomy: TaxonomySpec | None) -> None:
        """Discard everything, since the track is decoded from its beginning."""
        del card, hop_s, taxonomy
        self._parts = {}

    def classified(self, position: int, outputs: Rows) -> None:
        """Store the outputs for some of the windows."""
        self._parts[position] = outputs

    def collected(self) -> Rows | None:
        """Return the outputs in the order of the windows; None if none of them has sound."""
        return Rows.joined([self._parts[position] for position in sorted(self._parts)]) if self._parts else None


def inputs_of(card: ModelCard) -> tuple[HeadInput, ...]:
    """Return what a head can use of a network: its embedding, and its tags if it has any."""
    return ("embedding", "tags") if card.outputs.tags else ("embedding",)


def embed_recordings(
    recordings: Sequence[Recording], pipeline: Pipeline, *, artists: Mapping[str, str | None], cache: Path
) -> EmbeddedFolder:
    """Return the embeddings and tags of recordings, and show a progress bar on stderr.

    Recordings that cannot be decoded or are silent are left out with a warning. An interrupted call can be repeated.

    Args:
        recordings: The recordings.
        pipeline: A pipeline whose default model yields an embedding.
        artists: Artists by the names of the recordings.
        cache: Folder for the embeddings and tags; created if missing.

    Raises:
        DataError: If the cache cannot be written.
        ServiceError: If the device fails.
    """
    card = pipeline.model(None).card
    store = _Store(cache, card)
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
    length = card.outputs.embedding.length if card.outputs.embedding else 0
    return EmbeddedFolder(_with_duplicates(tracks, length), left_out)


def _with_duplicates(tracks: Sequence[EmbeddedTrack], length: int) -> tuple[EmbeddedTrack, ...]:
    """Mark tracks with the same embedding as an earlier one, which therefore have the same sound.

    Args:
        tracks: The tracks.
        length: Length of the embedding, which comes first in the windows.
    """
    if not tracks:
        return ()
    means = np.stack([unit_length(each.windows[:, :length].mean(axis=0)) for each in tracks])
    marked = []
    for i, each in enumerate(tracks):
        same = np.flatnonzero(np.abs(means[:i] - means[i]).max(axis=1, initial=0.0) < _SAME_SOUND)
        marked.append(replace(each, duplicate_of=tracks[same[0]].name if len(same) else None))
    return tuple(marked)


def _embed(recording: Recording, pipeline: Pipeline, store: _Store) -> NDArray[np.float32] | str:
    """Return what a head uses of the windows of a recording, or why there is nothing."""
    try:
        key = store.key(recording)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    cached = store.get(key)
    if cached is not None:
        return head_windows(cached, store.kinds, store.kinds)
    outputs = _OutputCollector()
    try:
        pipeline.predict(recording.path, tags=Detail.NONE, max_duration_s=_MAX_TRACK_S, observer=outputs)
    except ServiceError as error:
        if error.kind.status >= 500:
            raise
        return f"{error.kind.code}: {error.detail}"
    found = outputs.collected()
    if found is None:
        return "it is silent"
    kinds = pipeline.model(None).card.outputs.kinds
    kept = Rows(tuple(found.arrays[kinds.index(kind)] for kind in store.kinds))
    store.put(key, kept)
    return head_windows(kept, store.kinds, store.kinds)


class _Store:
    """Outputs of a network for recordings, on disk.

    Args:
        folder: The folder.
        card: Contract of the model.

    Attributes:
        kinds: The outputs that are stored.
    """

    def __init__(self, folder: Path, card: ModelCard) -> None:
        self._folder = folder
        self.kinds = inputs_of(card)
        parts = (card.audio, card.windows, *card.inputs, card.outputs)
        self._model = "\n".join((card.sha256, *self.kinds, *(part.model_dump_json() for part in parts)))

    def key(self, recording: Recording) -> Path:
        """Return the file for a recording in its present state.

        Raises:
            OSError: If the recording cannot be read.
        """
        status = recording.path.stat()
        identity = f"{self._model}\n{recording.name}\n{status.st_size} {status.st_mtime_ns}"
        return self._folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.npz"

    def get(self, key: Path) -> Rows | None:
        """Return what is stored in a file; None if there is nothing, or it is damaged."""
        try:
            with opened_npz(key) as entry:
                return Rows(tuple(np.asarray(entry[kind], dtype=np.float32) for kind in self.kinds))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def put(self, key: Path, outputs: Rows) -> None:
        """Store the outputs for a recording.

        Raises:
            OSError: If the file cannot be written.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        write_npz(key, dict(zip(self.kinds, outputs.arrays, strict=True)))
