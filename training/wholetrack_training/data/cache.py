"""A cache of log-mel frames on disk, one file per recording and kind of features."""

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
from wholetrack_training.files import opened_npz

_log = logging.getLogger(__name__)

# Part of every key. Increase it when the extraction changes, so that old entries are not used.
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class RecordingFeatures:
    """The features of one recording, or the reason why it has none.

    Attributes:
        frames: Log-mel values, ``[n_frames, n_mels]``; empty if the recording is rejected.
        digest: SHA-256 of the decoded samples, equal for recordings with exactly the same sound.
        rejection: Why the recording cannot be used; empty if it can.
    """

    frames: NDArray[np.float32]
    digest: str
    rejection: str = ""


class FeatureCache:
    """The features of recordings, looked up by name, size and modification time."""

    def __init__(self, folder: Path, audio: AudioSpec, features: FeatureSpec) -> None:
        """Keep entries for this kind of features in a subfolder of ``folder``.

        The normalisation is not part of the subfolder's name. It is applied later, and two systems may differ in
        nothing else.
        """
        spec = features.model_dump_json(exclude={"normalisation"})
        key = hashlib.sha256(f"{_FORMAT} {audio.model_dump_json()} {spec}".encode()).hexdigest()
        self.folder = folder / key[:16]

    def get(self, name: str, recording: Path) -> RecordingFeatures | None:
        """Return the entry of a recording, or None if there is none or the recording has changed since.

        A damaged entry is logged and treated as missing.
        """
        try:
            with opened_npz(self._path(name)) as entry:
                if str(entry["source"]) != _fingerprint(recording):
                    return None
                return RecordingFeatures(entry["frames"], str(entry["digest"]), str(entry["refusal"]))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
            _log.warning("The cached features of %s are damaged and will be computed again: %s", name, error)
            return None

    def put(self, name: str, recording: Path, found: RecordingFeatures) -> None:
        """Write an entry atomically.

        Raises:
            OSError: If the entry cannot be written. No partial file is left behind.
        """
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, unfinished = tempfile.mkstemp(dir=path.parent, suffix=".unfinished")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(
                    file,
                    frames=found.frames,
                    digest=found.digest,
                    refusal=found.rejection,
                    source=_fingerprint(recording),
                )
                file.flush()
                os.fsync(file.fileno())
            Path(unfinished).replace(path)
        except BaseException:
            Path(unfinished).unlink(missing_ok=True)
            raise

    def remove_unfinished(self) -> None:
        """Delete the partial files of processes that were killed while writing."""
        for unfinished in self.folder.glob("*.unfinished"):
            unfinished.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.npz"


def _fingerprint(recording: Path) -> str:
    status = recording.stat()
    return f"{status.st_size} {status.st_mtime_ns}"
