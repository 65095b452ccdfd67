"""Log-mel frames of recordings on disk, one file per recording and features, each complete or not there."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import AudioSpec, FeatureSpec

_log = logging.getLogger(__name__)

# Part of every key: raise it when the same recording would give other frames.
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Heard:
    """What became of a recording.

    Attributes:
        frames: log-mel values, ``[n_frames, n_mels]``; none where there is a refusal.
        digest: SHA-256 of the decoded samples, the same for recordings that sound exactly the same.
        refusal: why the recording cannot be used; empty if it can.
    """

    frames: NDArray[np.float32]
    digest: str
    refusal: str = ""


class FeatureCache:
    """Recordings that were heard before, by name, size and time of change, for one kind of features."""

    def __init__(self, folder: Path, audio: AudioSpec, features: FeatureSpec) -> None:
        """Entries lie in a folder of their own below ``folder``.

        The normalisation is left out of its name: it comes later, and two systems may differ in nothing else.
        """
        spec = features.model_dump_json(exclude={"normalisation"})
        key = hashlib.sha256(f"{_FORMAT} {audio.model_dump_json()} {spec}".encode()).hexdigest()
        self.folder = folder / key[:16]

    def get(self, name: str, recording: Path) -> Heard | None:
        """The entry of a recording; None if there is none, or the recording or the entry is not what it was."""
        path = self._path(name)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as entry:
                if str(entry["source"]) != _fingerprint(recording):
                    return None
                return Heard(entry["frames"], str(entry["digest"]), str(entry["refusal"]))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
            _log.warning("the cached features of %s are damaged and computed anew: %s", name, error)
            return None

    def put(self, name: str, recording: Path, heard: Heard) -> None:
        """Write an entry, so that no reader ever sees half of it.

        Raises:
            OSError: if it cannot be written; nothing is left behind then.
        """
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, unfinished = tempfile.mkstemp(dir=path.parent, suffix=".unfinished")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(
                    file,
                    frames=heard.frames,
                    digest=heard.digest,
                    refusal=heard.refusal,
                    source=_fingerprint(recording),
                )
                file.flush()
                os.fsync(file.fileno())
            Path(unfinished).replace(path)
        except BaseException:
            Path(unfinished).unlink(missing_ok=True)
            raise

    def sweep(self) -> None:
        """Remove what a killed writer left."""
        for unfinished in self.folder.glob("*.unfinished"):
            unfinished.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.npz"


def _fingerprint(recording: Path) -> str:
    status = recording.stat()
    return f"{status.st_size} {status.st_mtime_ns}"
