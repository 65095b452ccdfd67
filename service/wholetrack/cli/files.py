"""The recordings named on the command line, and their predictions."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from wholetrack.cancellation import Cancellation
from wholetrack.contracts import Detail, TrackPrediction
from wholetrack.decoding.container import AUDIO_SUFFIXES
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.logs import printable
from wholetrack.pipeline import Pipeline
from wholetrack.settings import Settings

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a file.

    Attributes:
        sha256: Its SHA-256, in hexadecimal.
        n_bytes: Its size.
    """

    sha256: str
    n_bytes: int

    @classmethod
    def of(cls, path: Path) -> Self:
        """Read a file.

        Raises:
            OSError: If it cannot be read.
        """
        with path.open("rb") as file:
            return cls(hashlib.file_digest(file, "sha256").hexdigest(), file.tell())


@dataclass(frozen=True, slots=True)
class FileResult:
    """The prediction of one file, or the error if it failed.

    Attributes:
        path: Path of the file.
        began: ``time.monotonic()`` when its processing began.
        outcome: The prediction or the error; None if an earlier run has predicted the same content.
        content: The content, if it was wanted.
    """

    path: Path
    began: float
    outcome: TrackPrediction | ServiceError | None
    content: Content | None = None


def text_of(path: Path) -> str:
    r"""Return a path as valid Unicode: bytes that are not UTF-8 are written as ``\xe9``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def find_recordings(paths: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Return the given files, and the audio files in the given folders and their subfolders.

    Returns:
        The files, and a sentence for each path that cannot be read or has no recordings.
    """
    recordings: list[Path] = []
    problems: list[str] = []
    for path in paths:
        name = printable(text_of(path))
        try:
            mode = path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            problems.append(f"{name} is neither a file nor a folder")
            continue
        except OSError as error:
            problems.append(f"cannot read {name}: {error.strerror}")
            continue
        if stat.S_ISDIR(mode):
            found, unreadable_folders = _recordings_in(path)
            if not found and not unreadable_folders:
                problems.append(f"{name} contains no recordings")
            recordings += found
            problems += unreadable_folders
        elif stat.S_ISREG(mode):
            recordings.append(path)
        else:
            problems.append(f"{name} is neither a file nor a folder")
    return recordings, problems


def predict_files(
    pipeline: Pipeline,
    files: Sequence[Path],
    *,
    model: str | None,
    hop_s: float | None,
    taxonomy: str | None = None,
    tags: Detail | None = None,
    embedding: Detail = Detail.NONE,
    settings: Settings,
    is_known: Callable[[Content], bool] | None = None,
) -> Generator[FileResult, None, None]:
    """Predict files in parallel and yield their results in the given order.

    Closing the iterator cancels the predictions that are not finished.

    Args:
        pipeline: Predicts the tracks.
        files: Paths of recordings.
        model: Name of a served model; None for the default.
        hop_s: Time between window starts in seconds; None for the model's default.
        taxonomy: Name of the taxonomy in which the genres are read; None for the labels of the model.
        tags: Detail of the tags; None for those of the track if the model has tags.
        embedding: Detail of the embedding.
        settings: How many files to predict at the same time, and how long each may be.
        is_known: Returns whether a content need not be predicted; None to predict everything without reading it before.
    """
    cancellation = Cancellation()

    def predict(path: Path) -> FileResult:
        began, content = time.monotonic(), None
        try:
            if is_known and is_known(content := Content.of(path)):
                return FileResult(path, began, None, content)
            outcome: TrackPrediction | ServiceError = pipeline.predict(
                path,
                model=model,
                hop_s=hop_s,
                taxonomy=taxonomy,
                tags=tags,
                embedding=embedding,
                max_duration_s=settings.max_duration_s,
                cancellation=cancellation,
            )
        except ServiceError as error:
            outcome = error
        except OSError as error:
            outcome = unreadable(error)
        except Exception:  # noqa: BLE001 - one file must not end the prediction of the others
            _log.exception("cannot predict %s", text_of(path))
            outcome = ServiceError(ErrorKind.INTERNAL_ERROR, "The prediction failed; the log has the reason.")
        return FileResult(path, began, outcome, content)

    with ThreadPoolExecutor(settings.tracks_at_once) as threads:
        try:
            yield from threads.map(predict, files)
        finally:
            cancellation.cancel(ServiceError(ErrorKind.CLIENT_GONE, "The command was interrupted."))


def unreadable(error: OSError) -> ServiceError:
    """Return the error for a file that cannot be read."""
    return ServiceError(ErrorKind.UNDECODABLE_AUDIO, f"The file cannot be read: {error.strerror}.")


def _recordings_in(folder: Path) -> tuple[list[Path], list[str]]:
    problems: list[str] = []

    def unreadable_folder(error: OSError) -> None:
        problems.append(f"cannot read {printable(text_of(Path(error.filename)))}: {error.strerror}")

    names = (Path(parent, name) for parent, _, names in os.walk(folder, onerror=unreadable_folder) for name in names)
    recordings = sorted(path for path in names if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file())
    return recordings, problems
