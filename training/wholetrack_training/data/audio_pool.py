"""Recordings decoded once, as one array of samples: ``<path>.npy``, with an index in ``<path>.npz``."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack.errors import ServiceError
from wholetrack_training.errors import DataError

_log = logging.getLogger(__name__)

POOL_RATE = 32000
"""Sample rate in Hz: the highest of all networks that use the pool."""
FULL_SCALE = 32767.0
"""Level of a sample of 1.0."""
_MAX_RECORDING_S = 4 * 3600.0
_MIN_S = 1.0


@dataclass(frozen=True, slots=True)
class AudioPool:
    """Recordings of any length.

    Attributes:
        names: Name of each recording.
        offsets: First sample of each recording, and the number of all samples at the end, ``[n + 1]``.
        samples: Mono samples at :data:`POOL_RATE`, int16, ``[n_samples]``.
    """

    names: tuple[str, ...]
    offsets: NDArray[np.int64]
    samples: NDArray[np.int16]

    def __len__(self) -> int:
        """Return the number of recordings."""
        return len(self.names)

    def selected(self, wanted: Sequence[int]) -> AudioPool:
        """Return a pool of some of the recordings, by index."""
        parts = [self.samples[self.offsets[i] : self.offsets[i + 1]] for i in wanted]
        return _pool([self.names[i] for i in wanted], parts)


def collect(files: Iterable[tuple[str, Path]], path: Path, decoder: FfmpegDecoder, *, max_s: float) -> AudioPool:
    """Decode recordings into a pool.

    Recordings that cannot be decoded, or are shorter than a second, are logged and left out.

    Args:
        files: Name and path of each recording.
        path: Where to write the pool, without suffix.
        decoder: Decodes the recordings.
        max_s: Only this much of each recording is used, from its middle.
    """
    names, parts = [], []
    for name, file in files:
        try:
            with decoder.open(file, sample_rate=POOL_RATE, max_duration_s=_MAX_RECORDING_S) as decoding:
                samples = np.concatenate(list(decoding.blocks()))
                decoding.summary()
        except (ServiceError, OSError) as error:
            _log.warning("Left out %s: %s", name, error)
            continue
        if len(samples) < _MIN_S * POOL_RATE:
            _log.warning("Left out %s: it is shorter than a second", name)
            continue
        names.append(name)
        parts.append(_levels(_middle(samples, round(max_s * POOL_RATE))))
    if not names:
        raise DataError("none of the recordings can be used")
    pool = _pool(names, parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path.with_suffix(".npy"), pool.samples)
    np.savez(path.with_suffix(".npz"), names=np.array(names), lengths=np.diff(pool.offsets))
    return pool


def read_pool(path: Path) -> AudioPool:
    """Read a pool; the samples are mapped, not read.

    Args:
        path: Path of the pool, without suffix.

    Raises:
        DataError: If a file is missing or damaged.
    """
    try:
        with path.with_suffix(".npz").open("rb") as content, np.load(content, allow_pickle=False) as index:
            names, lengths = tuple(str(name) for name in index["names"]), index["lengths"]
        samples = np.load(path.with_suffix(".npy"), mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not a pool of recordings: {error}") from error
    if len(names) != len(lengths) or lengths.sum() != len(samples):
        raise DataError(f"{path} is damaged: its index does not match its samples")
    return AudioPool(names, _offsets(lengths.tolist()), samples)


def _pool(names: Sequence[str], parts: Sequence[NDArray[np.int16]]) -> AudioPool:
    return AudioPool(tuple(names), _offsets([len(part) for part in parts]), np.concatenate(parts))


def _offsets(lengths: Sequence[int]) -> NDArray[np.int64]:
    return np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))


def _middle(samples: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    excess = len(samples) - length
    return samples if excess <= 0 else samples[excess // 2 : excess // 2 + length]


def _levels(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    levels: NDArray[np.int16] = np.clip(np.rint(samples * np.float32(FULL_SCALE)), -32768, 32767).astype(np.int16)
    return levels
