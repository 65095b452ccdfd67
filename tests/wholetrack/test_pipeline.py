"""The pipeline without a server: number of windows, silence, short tracks, hops, cancellation."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.processes import ffmpegs
from tests.harness.recordings import Recorder, wav_bytes
from wholetrack.cancellation import Cancellation
from wholetrack.contracts import TrackPrediction, WarningCode
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.pipeline import Pipeline

pytestmark = pytest.mark.timing

RATE = 22050


def predict(
    pipeline: Pipeline,
    folder: Path,
    samples: NDArray[np.float32],
    hop_s: float | None = None,
    model: str | None = None,
) -> TrackPrediction:
    path = folder / "recording.wav"
    path.write_bytes(wav_bytes(samples, RATE))
    return pipeline.predict(path, model=model, hop_s=hop_s, max_duration_s=3600)


def codes(found: TrackPrediction) -> list[WarningCode]:
    """Return the codes of all warnings, except that the tune is not like music."""
    return [warning.code for warning in found.warnings if warning.code is not WarningCode.OUT_OF_DOMAIN]


@pytest.mark.parametrize(
    ("seconds", "hop_s", "count"),
    [(0.01, None, 1), (2.999, None, 1), (3.0, None, 1), (3.1, None, 2), (4.0, None, 2), (9.0, None, 7), (9.0, 3.0, 3)],
)
def test_the_number_of_windows_follows_from_length_and_hop(
    pipeline: Pipeline, tmp_path: Path, tune: NDArray[np.float32], seconds: float, hop_s: float | None, count: int
) -> None:
    found = predict(pipeline, tmp_path, tune[: round(seconds * RATE)], hop_s)
    assert len(found.windows.start_s) == count
    assert found.windows.probabilities.shape == (count, len(found.card.labels))
    np.testing.assert_allclose(found.windows.probabilities.sum(axis=1), 1.0, atol=1e-5)
    assert codes(found) == ([WarningCode.PADDED] if seconds < 3 else [])


def test_a_silent_track_is_a_result_and_not_an_error(pipeline: Pipeline, tmp_path: Path) -> None:
    found = predict(pipeline, tmp_path, np.zeros(10 * RATE, dtype=np.float32))
    assert found.summed_score.genre is None
    assert found.majority_vote.genre is None
    assert found.confidence == 0.0
    assert found.sections == ()
    assert found.windows.silent.all()
    assert [w.code for w in found.warnings] == [WarningCode.SILENT_TRACK]


def test_leading_silence_shifts_the_windows_and_changes_nothing_else(
    pipeline: Pipeline, tmp_path: Path, tune: NDArray[np.float32]
) -> None:
    bare = predict(pipeline, tmp_path, tune)
    led_in = predict(pipeline, tmp_path, np.concatenate((np.zeros(5 * RATE, dtype=np.float32), tune)))
    assert led_in.windows.silent[:2].all()
    np.testing.assert_allclose(led_in.windows.probabilities[5:], bare.windows.probabilities, atol=1e-5)
    assert codes(led_in) == [WarningCode.SILENT_WINDOWS]


def test_probabilities_do_not_depend_on_loudness_if_windows_are_normalised(
    pipeline: Pipeline, tmp_path: Path, tune: NDArray[np.float32]
) -> None:
    model = "wholetrack-crnn-gtzan"
    loud = predict(pipeline, tmp_path, tune, model=model)
    quiet = predict(pipeline, tmp_path, tune * np.float32(0.01), model=model)
    np.testing.assert_allclose(loud.windows.probabilities, quiet.windows.probabilities, atol=1e-4)


def test_a_hop_of_one_frame_starts_a_window_at_every_frame(
    pipeline: Pipeline, tmp_path: Path, tune: NDArray[np.float32]
) -> None:
    found = predict(pipeline, tmp_path, tune[: 5 * RATE], hop_s=0.077)
    np.testing.assert_allclose(np.diff(found.windows.start_s), 1 / 13, atol=1e-9)


def test_the_number_of_windows_is_limited(
    pipeline: Pipeline, tmp_path: Path, tune: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "song.wav"
    path.write_bytes(wav_bytes(tune, 22050))
    monkeypatch.setattr(pipeline, "_max_steps", 60)
    assert len(pipeline.predict(path, max_duration_s=60, hop_s=0.5).windows.start_s) == 15
    # Ten seconds are one window of 29 s with all of its steps.
    assert len(pipeline.predict(path, model="deepsound-crnn", max_duration_s=60).windows.start_s) > 1
    with pytest.raises(ServiceError, match="more than 60 windows at this hop. Use a larger hop_s") as refused:
        pipeline.predict(path, max_duration_s=60, hop_s=0.1)
    assert refused.value.kind is ErrorKind.AUDIO_TOO_LONG


@pytest.mark.parametrize("hop_s", [1 / 13, 0.2, 0.3, 0.4, 1.0, 10.0, 29.0])
def test_steps_cover_the_whole_recording_at_any_hop(
    pipeline: Pipeline, tmp_path: Path, tune: NDArray[np.float32], hop_s: float
) -> None:
    """The steps are about one step apart, from the start to the end of the recording."""
    path = tmp_path / "song.wav"
    path.write_bytes(wav_bytes(np.tile(tune, 5), 22050))
    card = pipeline.model("deepsound-crnn").card
    starts = pipeline.predict(path, model=card.name, max_duration_s=60, hop_s=hop_s).windows.start_s
    assert starts[0] == 0
    assert abs(starts[-1] + card.step_s - 50) < card.step_s
    steps = np.diff(starts)
    assert steps.min() > card.step_s / 2 - 1e-6
    assert steps.max() < 1.6 * card.step_s


def test_an_unknown_model_and_an_invalid_hop_are_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    with pytest.raises(ServiceError) as caught:
        pipeline.predict(tmp_path / "x", model="nobody", max_duration_s=1)
    assert caught.value.kind is ErrorKind.UNKNOWN_MODEL
    with pytest.raises(ServiceError) as caught:
        pipeline.predict(tmp_path / "x", hop_s=3.5, max_duration_s=1)
    assert caught.value.kind is ErrorKind.INVALID_PARAMETER


def test_cancelling_stops_the_prediction_and_its_ffmpeg(pipeline: Pipeline, recorder: Recorder, tmp_path: Path) -> None:
    path = tmp_path / "long.flac"
    recorder.run("-f", "lavfi", "-i", "anoisesrc=r=22050", "-t", "1800", path)
    cancellation = Cancellation()
    caught: list[ServiceError] = []

    def work() -> None:
        try:
            pipeline.predict(path, max_duration_s=3600, cancellation=cancellation)
        except ServiceError as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while not ffmpegs():
        assert thread.is_alive()
    cancellation.cancel(ServiceError(ErrorKind.CLIENT_GONE, "gone"))
    thread.join(timeout=30)
    assert not thread.is_alive()
    assert [error.kind for error in caught] == [ErrorKind.CLIENT_GONE]
    assert ffmpegs() == []


def test_a_track_that_is_cancelled_before_it_starts_does_not_start(pipeline: Pipeline, tmp_path: Path) -> None:
    cancellation = Cancellation()
    cancellation.cancel(ServiceError(ErrorKind.DRAINING, "stop"))
    with pytest.raises(ServiceError, match="stop"):
        pipeline.predict(tmp_path / "missing", max_duration_s=1, cancellation=cancellation)
