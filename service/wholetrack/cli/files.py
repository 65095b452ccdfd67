"""The recordings named on the command line, and their predictions."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from wholetrack.contracts import TrackPrediction
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.pipeline import Pipeline
from wholetrack.settings import Settings

# Files to look for in folders. A file that is named explicitly may have any suffix.
_AUDIO_SUFFIXES = frozenset(
    {".aac", ".aif", ".aifc", ".aiff", ".flac", ".m4a", ".mka", ".mp3", ".mp4", ".oga", ".ogg", ".opus", ".wav", ".w64"}
    | {".webm", ".wma"}
)


@dataclass(frozen=True, slots=True)
class FileResult:
    """The prediction of one file, or the error if it failed.

    Attributes:
        path: Path of the file.
        began: ``time.monotonic()`` when its processing began.
        outcome: The prediction or the error.
    """

    path: Path
    began: float
    outcome: TrackPrediction | ServiceError


def find_recordings(paths: Sequence[Path]) -> list[Path]:
    """Return the given files, and the audio files in the given folders and their subfolders.

    Raises:
        FileNotFoundError: If a path is neither a file nor a folder.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(p for p in path.rglob("*") if p.suffix.lower() in _AUDIO_SUFFIXES and p.is_file())
        elif path.is_file():
            files.append(path)
        else:
            raise FileNotFoundError(f"{path} is neither a file nor a folder")
    return files


def predict_files(
    pipeline: Pipeline, files: Sequence[Path], *, model: str | None, hop_s: float | None, settings: Settings
) -> Iterator[FileResult]:
    """Predict files in parallel and yield their results in the given order.

    Args:
        pipeline: Predicts the tracks.
        files: Paths of recordings.
        model: Name of a served model; None for the default.
        hop_s: Time between window starts in seconds; None for the model's default.
        settings: How many files to predict at the same time, and how long each may be.
    """

    def predict(path: Path) -> FileResult:
        began = time.monotonic()
        try:
            prediction = pipeline.predict(path, model=model, hop_s=hop_s, max_duration_s=settings.max_duration_s)
        except ServiceError as error:
            return FileResult(path, began, error)
        except OSError as error:
            detail = f"The file cannot be read: {error.strerror}."
            return FileResult(path, began, ServiceError(ErrorKind.UNDECODABLE_AUDIO, detail))
        return FileResult(path, began, prediction)

    with ThreadPoolExecutor(settings.tracks_at_once) as threads:
        yield from threads.map(predict, files)
