"""Predicts single files of a store."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wholetrack.cancellation import Cancellation
from wholetrack.catalogue.errors import ResumableError
from wholetrack.catalogue.listed_file import ListedFile
from wholetrack.catalogue.store import Store, UnreadableFileError, is_shortage
from wholetrack.catalogue.tables import Failed, Predicted
from wholetrack.contracts import Detail, TrackPrediction
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.pipeline import Pipeline

_log = logging.getLogger(__name__)

UNREADABLE_FILE = "unreadable_file"
"""Code of a file that the store does not return. The other codes are those of the service."""
# A store that refuses every file has a problem of its own, such as credentials that have expired.
_MAX_UNREADABLE_IN_A_ROW = 50


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on a file.

    Attributes:
        max_bytes: Largest size.
        max_duration_s: Longest duration, in seconds.
        timeout_s: Longest time that its prediction may take, in seconds.
    """

    max_bytes: int
    max_duration_s: float
    timeout_s: float


class FilePredictor:
    """Predicts files of a store. Several threads may use it.

    Args:
        pipeline: Predicts the tracks, with its default model.
        source: Where the files are.
        folder: A private folder for copies of them.
        hop_s: Time between window starts in seconds; None for the model's default.
        taxonomy: Name of the taxonomy in which the genres are read; None for the labels of the model.
        limits: Limits on a file.
        device_pauses_s: How long to wait for a device that has failed before each further attempt, in seconds.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        source: Store,
        folder: Path,
        *,
        hop_s: float | None,
        taxonomy: str | None,
        limits: Limits,
        device_pauses_s: Sequence[float] = (1.0, 4.0, 15.0),
    ) -> None:
        self._pipeline = pipeline
        self._served = pipeline.model(None)
        self._source = source
        self._folder = folder
        self._hop_s = hop_s
        self._taxonomy = taxonomy
        self._limits = limits
        self._device_pauses_s = device_pauses_s
        self._all = Cancellation()
        self._ended = threading.Event()
        self._embedding = Detail.TRACK if self._served.card.outputs.embedding else Detail.NONE
        self._n_unreadable = 0

    def cancel(self) -> None:
        """Let all threads that predict raise an error soon."""
        self._ended.set()
        self._all.cancel(ServiceError(ErrorKind.CLIENT_GONE, "The run has ended."))

    def predict(self, file: ListedFile) -> Predicted | Failed:
        """Predict a file.

        Raises:
            ResumableError: If it is not this file that is at fault, or the run was cancelled.
        """
        if (file.size_bytes or 0) > self._limits.max_bytes:
            return Failed.of(file, self._too_large(file.size_bytes or 0))
        try:
            with self._source.local_copy(file.path, self._folder) as path:
                outcome = self._predict_copy(file, path)
        except (UnreadableFileError, FileNotFoundError, PermissionError, IsADirectoryError) as error:
            return self._unreadable(file, error)
        except OSError as error:
            if is_shortage(error):
                raise ResumableError(f"this machine cannot predict {file.text}: {error.strerror}") from error
            return self._unreadable(file, error)
        self._n_unreadable = 0
        return outcome

    def _predict_copy(self, file: ListedFile, path: Path) -> Predicted | Failed:
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
            size_bytes = content.tell()
        if size_bytes > self._limits.max_bytes:
            return Failed.of(file, self._too_large(size_bytes))
        try:
            return Predicted(file, size_bytes, digest, self._predicted(path))
        except ServiceError as error:
            if self._all.reason is not None:
                raise ResumableError(error.detail) from error
            return Failed.of(file, error)
        except (OSError, ResumableError):
            raise
        except Exception:  # noqa: BLE001 - one file must not end the run
            _log.exception("cannot predict %s", file.text)
            return Failed(file, ErrorKind.INTERNAL_ERROR.code, "The prediction failed; the log has the reason.")

    def _predicted(self, path: Path) -> TrackPrediction:
        """Predict a file, and repeat that if it was lost with a device.

        Raises:
            ServiceError: If the file cannot be predicted.
            ResumableError: If no file can be predicted any longer.
        """
        for pause_s in (*self._device_pauses_s, None):
            try:
                return self._predict_in_time(path)
            except ServiceError as error:
                if error.kind not in {ErrorKind.DEVICE_FAILED, ErrorKind.MODEL_UNAVAILABLE} or self._all.reason:
                    raise
                if pause_s is None:
                    if self._served.engine.healthy:
                        # The device works for other files.
                        raise
                    raise ResumableError(f"the model cannot run: {error.detail}") from error
                self._ended.wait(pause_s)
        raise AssertionError("the last attempt returns or raises")

    def _predict_in_time(self, path: Path) -> TrackPrediction:
        limits, own = self._limits, Cancellation()
        too_slow = ServiceError(
            ErrorKind.DEADLINE_EXCEEDED, f"The prediction took longer than the limit of {limits.timeout_s:g} seconds."
        )
        timer = threading.Timer(limits.timeout_s, own.cancel, (too_slow,))
        timer.daemon = True
        timer.start()
        try:
            with self._all.calling(own.cancel):
                return self._pipeline.predict(
                    path,
                    hop_s=self._hop_s,
                    taxonomy=self._taxonomy,
                    embedding=self._embedding,
                    max_duration_s=limits.max_duration_s,
                    cancellation=own,
                )
        finally:
            timer.cancel()

    def _too_large(self, size_bytes: int) -> ServiceError:
        return ServiceError(
            ErrorKind.UPLOAD_TOO_LARGE,
            f"The file has {size_bytes} bytes, which is more than the limit of {self._limits.max_bytes}.",
        )

    def _unreadable(self, file: ListedFile, error: Exception) -> Failed:
        """Return the failure of a file that cannot be read, unless no file can be read.

        Raises:
            ResumableError: If the store refuses everything, or many files in a row.
        """
        self._source.check()
        detail = str(error) if isinstance(error, UnreadableFileError) else _sentence(error)
        self._n_unreadable += 1
        if self._n_unreadable >= _MAX_UNREADABLE_IN_A_ROW:
            raise ResumableError(
                f"{self._source.url} refuses to return any file, {_MAX_UNREADABLE_IN_A_ROW} in a row: {detail}"
            ) from error
        return Failed(file, UNREADABLE_FILE, detail)


def _sentence(error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"The file cannot be read: {reason}."
