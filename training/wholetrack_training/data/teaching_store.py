"""Recordings with what taggers say of them: samples, decoded once, and targets, in one pair of files per recording.

``<key>.pcm`` holds mono 16-bit samples, ``<key>.npz`` the rest. A recording is complete once its ``.npz`` exists.
"""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wholetrack_training.errors import DataError

_FULL_SCALE = 32767.0


@dataclass(frozen=True, slots=True)
class Targets:
    """What one tagger says of the windows of a recording.

    Attributes:
        windows: Indices of the windows that it was asked about, ``[n]``.
        logits: One per tag, ``[n, n_labels]``.
        embedding: Its penultimate layer, ``[n, length]``.
    """

    windows: NDArray[np.intp]
    logits: NDArray[np.float32]
    embedding: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TaughtRecording:
    """A recording in the store.

    Attributes:
        name: Path relative to the data set.
        start_s: Start of each window in seconds, ``[n_windows]``.
        targets: By name of the tagger.
        pcm: File of the samples.
    """

    name: str
    start_s: NDArray[np.float64]
    targets: dict[str, Targets]
    pcm: Path

    def samples(self, begin: int, length: int) -> NDArray[np.float32]:
        """Return samples, ``[length]``; zeros beyond the end of the recording."""
        stored = np.memmap(self.pcm, dtype=np.int16, mode="r")[begin : begin + length]
        out = np.zeros(length, dtype=np.float32)
        out[: len(stored)] = stored
        out /= np.float32(_FULL_SCALE)
        return out


class TeachingStore:
    """A folder of taught recordings.

    Attributes:
        folder: The folder; created when the first recording is added.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __contains__(self, name: str) -> bool:
        """Whether a recording is complete."""
        return self._path(name, ".npz").exists()

    def add(
        self, name: str, samples: NDArray[np.float32], start_s: NDArray[np.float64], targets: dict[str, Targets]
    ) -> None:
        """Add or replace a recording.

        Args:
            name: Path relative to the data set.
            samples: Mono audio, full scale at 1.0, ``[n_samples]``.
            start_s: Start of each window in seconds.
            targets: By name of the tagger.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        levels = np.clip(np.rint(samples * np.float32(_FULL_SCALE)), -32768, 32767).astype(np.int16)
        levels.tofile(self._path(name, ".pcm"))
        arrays: dict[str, NDArray[np.generic]] = {"name": np.array(name), "start_s": start_s}
        for tagger, given in targets.items():
            arrays[f"{tagger}.windows"] = given.windows
            arrays[f"{tagger}.logits"] = given.logits.astype(np.float16)
            arrays[f"{tagger}.embedding"] = given.embedding.astype(np.float16)
        unfinished = self._path(name, ".unfinished.npz")
        np.savez(unfinished, **arrays)  # type: ignore[arg-type]
        unfinished.replace(self._path(name, ".npz"))

    def recordings(self) -> list[TaughtRecording]:
        """Return all complete recordings, ordered by file name.

        Raises:
            DataError: If there are none, or a file is damaged.
        """
        files = sorted(path for path in self.folder.glob("*.npz") if not path.name.endswith(".unfinished.npz"))
        if not files:
            raise DataError(f"{self.folder} holds no taught recordings: run `wholetrack-train teach` first")
        return [_read(path) for path in files]

    def _path(self, name: str, suffix: str) -> Path:
        return self.folder / (hashlib.sha256(name.encode()).hexdigest()[:16] + suffix)


def _read(path: Path) -> TaughtRecording:
    try:
        with path.open("rb") as content, np.load(content, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        taggers = sorted({name.split(".")[0] for name in arrays if "." in name})
        targets = {
            tagger: Targets(
                arrays[f"{tagger}.windows"],
                arrays[f"{tagger}.logits"].astype(np.float32),
                arrays[f"{tagger}.embedding"].astype(np.float32),
            )
            for tagger in taggers
        }
        return TaughtRecording(str(arrays["name"]), arrays["start_s"], targets, path.with_suffix(".pcm"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is damaged: {error}. Delete it, and run `wholetrack-train teach` again") from error
