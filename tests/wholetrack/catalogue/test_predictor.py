"""What a file may do to a run, and what it may not."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from wholetrack.cancellation import Cancellation
from wholetrack.catalogue.errors import ResumableError
from wholetrack.catalogue.listed_file import ListedFile
from wholetrack.catalogue.predictor import FilePredictor, Limits
from wholetrack.catalogue.store import Store
from wholetrack.catalogue.tables import Failed, Predicted
from wholetrack.errors import ErrorKind, ServiceError

PREDICTION = object()
DEVICE_FAILED = ServiceError(ErrorKind.DEVICE_FAILED, "The device failed.")


@pytest.fixture
def file(tmp_path: Path) -> ListedFile:
    path = tmp_path / "a.wav"
    path.write_bytes(b"content")
    return ListedFile(str(path), 7, None, None)


@pytest.fixture
def predictor(tmp_path: Path) -> Callable[..., FilePredictor]:
    """Return a predictor whose pipeline has these outcomes, one for each call."""

    def make(*outcomes: Any, healthy: bool = True, timeout_s: float = 600.0) -> FilePredictor:
        remaining = list(outcomes)

        def predict(path: Path, *, cancellation: Cancellation, **_: Any) -> Any:
            assert path.read_bytes() == b"content"
            outcome = remaining.pop(0)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome(cancellation) if callable(outcome) else outcome

        served = SimpleNamespace(
            card=SimpleNamespace(outputs=SimpleNamespace(embedding=None)), engine=SimpleNamespace(healthy=healthy)
        )
        pipeline: Any = SimpleNamespace(model=lambda _: served, predict=predict)
        limits = Limits(max_bytes=100, max_duration_s=60.0, timeout_s=timeout_s)
        return FilePredictor(
            pipeline,
            Store(str(tmp_path), {}),
            tmp_path,
            hop_s=None,
            taxonomy=None,
            limits=limits,
            device_pauses_s=(0.0, 0.0),
        )

    return make


def wait_until_cancelled(cancellation: Cancellation) -> None:
    cancelled = threading.Event()
    with cancellation.calling(lambda _: cancelled.set()):
        assert cancelled.wait(30)
    cancellation.check()


def code(outcome: Predicted | Failed) -> str:
    assert isinstance(outcome, Failed)
    return outcome.code


def test_a_file_that_is_lost_with_a_device_is_predicted_again(
    predictor: Callable[..., FilePredictor], file: ListedFile
) -> None:
    outcome = predictor(DEVICE_FAILED, DEVICE_FAILED, PREDICTION).predict(file)
    assert isinstance(outcome, Predicted)
    assert outcome.prediction is PREDICTION
    assert outcome.size_bytes == 7


def test_a_file_that_no_device_can_predict_is_told_from_a_device_that_predicts_no_file(
    predictor: Callable[..., FilePredictor], file: ListedFile
) -> None:
    assert code(predictor(*[DEVICE_FAILED] * 3).predict(file)) == "device_failed"
    with pytest.raises(ResumableError, match="the model cannot run: The device failed."):
        predictor(*[DEVICE_FAILED] * 3, healthy=False).predict(file)


def test_a_file_that_takes_too_long_fails(predictor: Callable[..., FilePredictor], file: ListedFile) -> None:
    slow = predictor(wait_until_cancelled, PREDICTION, timeout_s=0.01)
    outcome = slow.predict(file)
    assert code(outcome) == "deadline_exceeded"
    assert isinstance(slow.predict(file), Predicted)


def test_an_unexpected_error_costs_only_its_file(predictor: Callable[..., FilePredictor], file: ListedFile) -> None:
    broken = predictor(ZeroDivisionError(), PREDICTION)
    assert code(broken.predict(file)) == "internal_error"
    assert isinstance(broken.predict(file), Predicted)


def test_a_prediction_that_is_cancelled_is_no_failure_of_its_file(
    predictor: Callable[..., FilePredictor], file: ListedFile
) -> None:
    def end_the_run(cancellation: Cancellation) -> None:
        cancelled.cancel()
        wait_until_cancelled(cancellation)

    cancelled = predictor(end_the_run)
    with pytest.raises(ResumableError, match="The run has ended"):
        cancelled.predict(file)


def test_a_machine_that_lacks_something_ends_the_run(predictor: Callable[..., FilePredictor], file: ListedFile) -> None:
    with pytest.raises(ResumableError, match="this machine cannot predict .*a.wav: Too many open files"):
        predictor(OSError(errno.EMFILE, "Too many open files")).predict(file)
    assert code(predictor(OSError(errno.EIO, "Input/output error")).predict(file)) == "unreadable_file"


def test_a_store_that_returns_no_file_ends_the_run(
    predictor: Callable[..., FilePredictor], file: ListedFile, tmp_path: Path
) -> None:
    missing = ListedFile(str(tmp_path / "missing.wav"), None, None, None)
    refused = predictor(PREDICTION)
    for _ in range(49):
        assert code(refused.predict(missing)) == "unreadable_file"
    # One that can be read shows that the store works.
    assert isinstance(refused.predict(file), Predicted)
    for _ in range(49):
        refused.predict(missing)
    with pytest.raises(ResumableError, match="refuses to return any file, 50 in a row: The file"):
        refused.predict(missing)


def test_files_above_the_limit_are_not_copied(predictor: Callable[..., FilePredictor], file: ListedFile) -> None:
    large = ListedFile("s3://elsewhere/large.wav", 101, None, None)
    outcome = predictor().predict(large)
    assert code(outcome) == "upload_too_large"
    Path(file.path).write_bytes(bytes(102))
    outcome = predictor().predict(file)
    assert isinstance(outcome, Failed)
    assert outcome.detail == "The file has 102 bytes, which is more than the limit of 100."
