"""Predictions of audio that arrives while it is predicted."""

from __future__ import annotations

import io
import subprocess
import threading
import wave
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.recordings import wav_bytes
from tests.harness.waiting import until
from wholetrack.cancellation import Cancellation
from wholetrack.contracts import Rows, TrackPrediction, WarningCode
from wholetrack.decoding.ffmpeg import Ffmpeg
from wholetrack.decoding.live_pcm import LivePcm, PcmEncoding, PcmFormat
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.observer import Observer
from wholetrack.pipeline import Pipeline

pytestmark = pytest.mark.timing

RATE = 22050
MONO = PcmFormat(PcmEncoding.FLOAT32, RATE, 1)


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


class Counter(Observer):
    """Counts the windows that have been classified."""

    def __init__(self) -> None:
        self.n_classified = 0

    def classified(self, position: int, outputs: Rows) -> None:
        self.n_classified = position + len(outputs)


def send(source: LivePcm, data: bytes, *, n_messages: int = 50) -> None:
    size = max(1, -(-len(data) // source.audio.frame_bytes // n_messages)) * source.audio.frame_bytes
    for start in range(0, len(data), size):
        source.put(data[start : start + size])
    source.end()


def predict_live(pipeline: Pipeline, audio: PcmFormat, data: bytes, *, max_duration_s: float = 600) -> TrackPrediction:
    source = LivePcm(audio)
    with ThreadPoolExecutor(1) as executor:
        found = executor.submit(pipeline.predict, source, max_duration_s=max_duration_s)
        send(source, data)
        return found.result(timeout=60)


def wav_of(data: bytes, *, rate: int, channels: int) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setparams((channels, 2, rate, 0, "NONE", ""))
        written.writeframes(data)
    return file.getvalue()


@pytest.mark.parametrize(("rate", "channels"), [(RATE, 1), (48_000, 1), (44_100, 2), (8_000, 3)])
def test_live_audio_and_a_file_of_the_same_samples_give_the_same_windows(
    pipeline: Pipeline, tmp_path: Path, tune: NDArray[np.float32], rate: int, channels: int
) -> None:
    rng = np.random.default_rng(1)
    noise = rng.uniform(-0.05, 0.05, (len(tune), channels)).astype(np.float32)
    data = ((tune[:, None] * 0.5 + noise) * 32767).astype("<i2").tobytes()
    path = tmp_path / "recording.wav"
    path.write_bytes(wav_of(data, rate=rate, channels=channels))
    file = pipeline.predict(path, max_duration_s=600)
    live = predict_live(pipeline, PcmFormat(PcmEncoding.INT16, rate, channels), data)
    np.testing.assert_allclose(live.windows.start_s, file.windows.start_s)
    np.testing.assert_allclose(live.windows.probabilities, file.windows.probabilities, atol=1e-5)
    assert live.duration_s == pytest.approx(file.duration_s, abs=1e-3)
    assert live.summed_score == file.summed_score or live.summed_score.genre == file.summed_score.genre
    assert (live.stream.codec, live.stream.container) == ("pcm_s16le", "s16le")
    assert (live.stream.sample_rate_hz, live.stream.channels) == (rate, channels)


@pytest.mark.data
def test_the_windows_of_a_real_recording_are_the_same_live(
    pipeline: Pipeline, ffmpeg: Ffmpeg, music: Path, tmp_path: Path
) -> None:
    song = music / "audio" / "full" / "vibe-ace.ogg"
    decode = [ffmpeg.path, "-v", "error", "-i", song, "-t", "60", "-ac", "2", "-ar", "44100", "-f", "s16le", "-"]
    data = subprocess.run(list(map(str, decode)), check=True, capture_output=True).stdout
    path = tmp_path / "recording.wav"
    path.write_bytes(wav_of(data, rate=44100, channels=2))
    file = pipeline.predict(path, max_duration_s=600)
    live = predict_live(pipeline, PcmFormat(PcmEncoding.INT16, 44100, 2), data)
    assert len(live.windows.start_s) == 58
    np.testing.assert_allclose(live.windows.probabilities, file.windows.probabilities, atol=1e-5)
    assert live.summed_score.genre == file.summed_score.genre


def test_a_window_is_classified_as_soon_as_it_is_complete(
    pipeline: Pipeline, tune: NDArray[np.float32], thread: ThreadPoolExecutor
) -> None:
    """Spectrograms of files are computed in blocks of 2.5 seconds."""
    source, counter = LivePcm(MONO), Counter()
    found = thread.submit(pipeline.predict, source, max_duration_s=600, observer=counter)
    for second in range(8):
        source.put(tune[second * RATE : (second + 1) * RATE].tobytes())
        # The last frame of a window needs some samples more.
        source.put(np.zeros(0, dtype=np.float32).tobytes())
        until(lambda n=second: counter.n_classified >= n - 2, seconds=30)  # type: ignore[misc]
    source.end()
    assert len(found.result(timeout=60).windows.start_s) == 6


def test_a_track_that_waits_for_audio_leaves_its_slot_to_others(
    pipeline: Pipeline, tmp_path: Path, tune: NDArray[np.float32]
) -> None:
    n_slots = pipeline.scheduler._n_free
    sources = [LivePcm(MONO) for _ in range(n_slots + 2)]
    path = tmp_path / "recording.wav"
    path.write_bytes(wav_bytes(tune, RATE))
    with ThreadPoolExecutor(len(sources)) as executor:
        live = [executor.submit(pipeline.predict, source, max_duration_s=600) for source in sources]
        for source in sources:
            source.put(tune[:RATE].tobytes())
        until(lambda: pipeline.scheduler._n_free == n_slots and not any(s.buffered_s for s in sources), seconds=30)
        pipeline.predict(path, max_duration_s=600)
        for source in sources:
            source.end()
        for each in live:
            assert len(each.result(timeout=60).windows.start_s) == 1
    assert pipeline.scheduler._n_free == n_slots


def test_cancelling_ends_the_wait_for_audio(pipeline: Pipeline, thread: ThreadPoolExecutor) -> None:
    cancellation, n_slots = Cancellation(), pipeline.scheduler._n_free
    waiting = threading.Event()

    class Source(LivePcm):
        def wait(self, seconds: float) -> None:
            waiting.set()
            super().wait(seconds)

    found: Future[TrackPrediction] = thread.submit(
        pipeline.predict, Source(MONO), max_duration_s=600, cancellation=cancellation
    )
    assert waiting.wait(30)
    cancellation.cancel(ServiceError(ErrorKind.CLIENT_GONE, "The client left."))
    with pytest.raises(ServiceError, match="client_gone"):
        found.result(timeout=30)
    assert pipeline.scheduler._n_free == n_slots


def test_limits_and_unusual_audio(pipeline: Pipeline, tune: NDArray[np.float32]) -> None:
    with pytest.raises(ServiceError, match="audio_too_long"):
        predict_live(pipeline, MONO, np.tile(tune, 2).tobytes(), max_duration_s=15)
    with pytest.raises(ServiceError, match="empty_audio"):
        predict_live(pipeline, MONO, b"")
    damaged = tune.copy()
    damaged[RATE] = np.nan
    assert WarningCode.DAMAGED in [w.code for w in predict_live(pipeline, MONO, damaged.tobytes()).warnings]
    opposite = np.stack([tune, -tune], axis=1).astype(np.float32)
    found = predict_live(pipeline, PcmFormat(PcmEncoding.FLOAT32, RATE, 2), opposite.tobytes())
    assert WarningCode.CANCELLED_CHANNELS in [w.code for w in found.warnings]
    assert not found.windows.silent.any()


def test_taking_audio_tells_the_sender() -> None:
    taken: list[float] = []
    source = LivePcm(MONO, on_taken=lambda: taken.append(source.buffered_s))
    source.put(np.zeros(RATE, dtype=np.float32).tobytes())
    source.put(np.zeros(RATE, dtype=np.float32).tobytes())
    assert source.buffered_s == 2
    data, is_last = source.take(0.5)
    assert (len(data), is_last, taken) == (4 * RATE, False, [1.0])
    source.end()
    assert source.take(10)[1]
    assert source.take(10) == (b"", True)
