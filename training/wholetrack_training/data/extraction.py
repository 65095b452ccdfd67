"""Feature extraction for many recordings in parallel, through the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text
from threadpoolctl import threadpool_limits

from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack.errors import ServiceError
from wholetrack.features.logmel import LogMel
from wholetrack.settings import available_cpus
from wholetrack_training.data.audio_augmentation import VERSIONS
from wholetrack_training.data.cache import FeatureCache, RecordingFeatures
from wholetrack_training.data.chunks import Samples, equal_chunks

# The phase vocoder of an augmented copy keeps the whole spectrum of its input in memory.
_CHUNK_S = 60
_MAX_TRACK_S = 4 * 3600.0
_NO_FRAMES = np.zeros((0, 0), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Recording:
    """An audio file of a data set.

    Attributes:
        name: Path relative to the data set, such as ``jazz/take-five.flac``.
        genre: Name of the folder directly below the data set.
        path: The file.
    """

    name: str
    genre: str
    path: Path


@dataclass(frozen=True, slots=True)
class FeatureExtractor:
    """Computes the frames of recordings, or reads them from the cache.

    Attributes:
        features: Computes the same features as the service.
        decoder: Decodes the recordings.
        cache: Keeps the results.
    """

    features: LogMel
    decoder: FfmpegDecoder
    cache: FeatureCache

    def extract(self, recordings: Sequence[Recording], version: str | None = None) -> list[RecordingFeatures]:
        """Return the features of every recording, in order, and show a progress bar on stderr.

        Args:
            recordings: What to process, one per CPU at a time.
            version: Name of an augmentation in :data:`.audio_augmentation.VERSIONS` to apply first; None for none.

        Raises:
            OSError: If the cache cannot be written.
        """
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
        with (
            # The last bits of a matrix product depend on the number of BLAS threads. Files run in parallel instead.
            threadpool_limits(1, "blas"),
            Progress(*columns, console=Console(stderr=True), transient=True) as progress,
            ThreadPoolExecutor(available_cpus()) as pool,
        ):
            try:
                found = pool.map(lambda recording: self._extract_one(recording, version), recordings)
                return list(progress.track(found, len(recordings), description=version or "features"))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _extract_one(self, recording: Recording, version: str | None) -> RecordingFeatures:
        name = f"{recording.name} {version}" if version else recording.name
        cached = self.cache.get(name, recording.path)
        if cached is not None:
            return cached
        try:
            found = self._compute(recording.path, version)
        except OSError as error:
            return _rejected(f"it cannot be read: {error.strerror}")
        except ServiceError as error:
            found = _rejected(f"{error.kind.code}: {error.detail}")
            if error.kind.status >= 500:
                # The recording is not the cause, for example if ffmpeg was killed. Not cached, so that it is retried.
                return found
        self.cache.put(name, recording.path, found)
        return found

    def _compute(self, recording: Path, version: str | None) -> RecordingFeatures:
        stream, digest, frames = self.features.stream(), hashlib.sha256(), []
        for samples in self._samples(recording, version):
            digest.update(samples.tobytes())
            frames.append(stream.push(samples))
        frames.append(stream.finish())
        joined = np.concatenate(frames)
        if not joined.max() > self.features.silence:
            return _rejected("it is silent")
        return RecordingFeatures(joined, digest.hexdigest())

    def _samples(self, recording: Path, version: str | None) -> Iterator[Samples]:
        """Yield mono samples block by block; an augmented copy is made a minute at a time."""
        rate = self.features.grid.sample_rate
        with self.decoder.open(recording, sample_rate=rate, max_duration_s=_MAX_TRACK_S) as decoding:
            if version is None:
                yield from decoding.blocks()
            else:
                chunks = equal_chunks(decoding.blocks(), rate * _CHUNK_S)
                yield from (VERSIONS[version](chunk, rate) for chunk in chunks)
            decoding.summary()


class _Rate(ProgressColumn):
    """Recordings per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "")


def _rejected(reason: str) -> RecordingFeatures:
    return RecordingFeatures(_NO_FRAMES, "", reason)
