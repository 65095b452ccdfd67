"""Feature workers compute what this process would, and are replaced when they are lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from tests.harness.recordings import Recorder, wav_bytes
from tests.harness.waiting import until
from wholetrack.contracts import TrackPrediction
from wholetrack.decoding.audio_parts import find_audio_parts
from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack.decoding.pipes import LogReader
from wholetrack.decoding.plan import QUICK, THOROUGH, DecodingPlan
from wholetrack.errors import ErrorKind, ServiceError, StartupError
from wholetrack.extraction.client import RemoteWindows, WorkerLostError
from wholetrack.extraction.sealed_memory import MessageError
from wholetrack.extraction.windows import ExtractedWindows, WindowExtractor
from wholetrack.extraction.workers import FeatureWorkers
from wholetrack.observer import Observer
from wholetrack.pipeline import Pipeline
from wholetrack.served_model import ServedModel

pytestmark = pytest.mark.timing

RATE = 22050


@pytest.fixture(scope="module")
def workers() -> Iterator[FeatureWorkers]:
    with closing(FeatureWorkers(2, max_tracks=8)) as workers:
        yield workers


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory, tune: NDArray[np.float32]) -> Path:
    """A minute with some silence, in stereo of another sample rate, so that exact decoding has to resample it."""
    path = tmp_path_factory.mktemp("song") / "song.wav"
    path.write_bytes(wav_bytes(np.concatenate([tune, np.zeros(8 * RATE, dtype=np.float32), np.tile(tune, 5)]), 32000))
    return path


def processes_of(workers: FeatureWorkers) -> list[psutil.Process]:
    return [psutil.Process(worker._process.pid) for worker in workers._workers]


@contextmanager
def opened(workers: FeatureWorkers, served: ServedModel, **changes: Any) -> Iterator[RemoteWindows]:
    options: dict[str, Any] = {"hop_s": 1.0, "peaks_per_s": 10, "keep_silent": False} | changes
    with workers.open_track(served.card, served.features, **options) as windows:
        yield windows


@contextmanager
def pipe_into(windows: RemoteWindows) -> Iterator[int]:
    """Begin with a pipe as the output of ffmpeg, and yield its write end."""
    read_end, write_end = os.pipe()
    windows.begin(os.fdopen(read_end, "rb", buffering=0), rate=None, is_last=True)
    try:
        yield write_end
    finally:
        os.close(write_end)


@pytest.fixture
def no_log() -> Iterator[LogReader]:
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb", buffering=0) as stderr:
        yield LogReader(stderr, lambda _: None)
    os.close(write_end)


@pytest.fixture(scope="module")
def medley(tmp_path_factory: pytest.TempPathFactory, recorder: Recorder, song: Path) -> Path:
    """Three recordings in one file, each of which is decoded by an ffmpeg process of its own."""
    folder = tmp_path_factory.mktemp("medley")
    path = folder / "medley.ogg"
    for number, channels in enumerate((1, 2, 1)):
        recorder.run("-ss", f"{5 * number}", "-t", "5", "-i", song, "-ac", f"{channels}", folder / "part.ogg")
        with path.open("ab") as file:
            file.write((folder / "part.ogg").read_bytes())
    assert len(find_audio_parts(path).parts) == 3
    return path


@pytest.mark.parametrize("recording", ["song", "medley"])
@pytest.mark.parametrize("plan", [QUICK, THOROUGH], ids=["quick", "exact"])
@pytest.mark.parametrize(("hop_s", "keep_silent"), [(1.0, False), (1.0, True), (1 / 13, False)])
def test_a_worker_computes_the_same_windows_as_this_process(
    pipeline: Pipeline,
    decoder: FfmpegDecoder,
    workers: FeatureWorkers,
    request: pytest.FixtureRequest,
    recording: str,
    plan: DecodingPlan,
    hop_s: float,
    keep_silent: bool,  # noqa: FBT001
) -> None:
    served = pipeline.model(None)
    song = request.getfixturevalue(recording)
    with decoder.open(song, sample_rate=RATE, max_duration_s=3600, plan=plan) as local:
        extractor = WindowExtractor(served.features, served.grid(hop_s), peaks_per_s=10, keep_silent=keep_silent)
        expected = [extractor.push(samples, is_last=local.ended) for samples in local.blocks()]
    with (
        opened(workers, served, hop_s=hop_s, keep_silent=keep_silent) as windows,
        decoder.open_with(windows, song, sample_rate=RATE, max_duration_s=3600, plan=plan) as remote,
    ):
        found = list(remote.blocks())
        assert remote.summary() == local.summary()
    assert remote.n_samples == local.n_samples > 14 * RATE
    for one, other in zip(columns(found), columns(expected), strict=True):
        np.testing.assert_array_equal(one, other)


def columns(blocks: list[ExtractedWindows]) -> list[NDArray[np.generic]]:
    parts = [(block.start_s, block.silent, block.peaks, *block.rows.arrays) for block in blocks]
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def test_the_output_is_only_read_when_a_block_is_requested(
    pipeline: Pipeline, workers: FeatureWorkers, no_log: LogReader
) -> None:
    """Otherwise a track that has no slot would not stop its ffmpeg."""
    with opened(workers, pipeline.model(None)) as windows, pipe_into(windows) as pcm:
        os.set_blocking(pcm, False)
        sent = os.write(pcm, bytes(1 << 20))
        with pytest.raises(BlockingIOError):
            os.write(pcm, bytes(4))
        block = windows.receive(no_log)
        assert (block.stalled, block.n_samples) == (True, sent // 4)
        assert os.write(pcm, bytes(4)) == 4


def test_a_stalled_output_yields_empty_blocks(pipeline: Pipeline, workers: FeatureWorkers, no_log: LogReader) -> None:
    with opened(workers, pipeline.model(None)) as windows, pipe_into(windows):
        for _ in range(2):
            block = windows.receive(no_log)
            assert (block.stalled, block.n_samples, len(block.content.start_s)) == (True, 0, 0)


def test_a_worker_forgets_tracks_that_are_closed(pipeline: Pipeline, no_log: LogReader) -> None:
    with closing(FeatureWorkers(1, max_tracks=8)) as workers:
        (worker,) = processes_of(workers)
        # Standard input, output, error, and its socket.
        until(lambda: worker.num_fds() == 4)
        before = psutil.Process().num_fds()
        for _ in range(20):
            with opened(workers, pipeline.model(None)) as windows, pipe_into(windows) as pcm:
                os.write(pcm, bytes(400))
                windows.receive(no_log)
        until(lambda: (worker.num_fds(), psutil.Process().num_fds()) == (4, before))


def test_tracks_are_distributed_over_the_workers(pipeline: Pipeline, workers: FeatureWorkers) -> None:
    served = pipeline.model(None)
    with opened(workers, served), opened(workers, served), opened(workers, served), opened(workers, served):
        assert [worker.n_tracks for worker in workers._workers] == [2, 2]
    assert [worker.n_tracks for worker in workers._workers] == [0, 0]


def test_an_error_in_one_track_leaves_the_others_alone(pipeline: Pipeline, no_log: LogReader) -> None:
    served = pipeline.model(None)
    with closing(FeatureWorkers(1, max_tracks=8)) as workers:
        with opened(workers, served) as good, pipe_into(good) as pcm:
            with opened(workers, served) as bad, pytest.raises(MessageError, match="requested before a part"):
                bad.receive(no_log)
            with opened(workers, served, hop_s=99.0) as bad, pytest.raises(MessageError, match="hop_s must be between"):
                bad.receive(no_log)
            os.write(pcm, bytes(400))
            assert good.receive(no_log).n_samples == 100
        assert workers.counts().replaced == 0


def receive_from_killed(worker: psutil.Process, windows: RemoteWindows, no_log: LogReader) -> None:
    worker.kill()
    windows.receive(no_log)


def test_a_lost_worker_ends_its_tracks_and_is_replaced(
    pipeline: Pipeline, no_log: LogReader, caplog: pytest.LogCaptureFixture
) -> None:
    served = pipeline.model(None)
    with closing(FeatureWorkers(1, max_tracks=8)) as workers:
        (worker,) = processes_of(workers)
        worker.suspend()
        with pytest.raises(WorkerLostError), opened(workers, served) as windows, pipe_into(windows):
            receive_from_killed(worker, windows, no_log)
        assert workers.counts().running == workers.counts().replaced == 1
        assert "replacing a feature worker" in caplog.text
        with opened(workers, served) as windows, pipe_into(windows) as pcm:
            os.write(pcm, bytes(400))
            assert windows.receive(no_log).n_samples == 100


def test_a_worker_that_ended_while_it_was_idle_is_replaced(pipeline: Pipeline, no_log: LogReader) -> None:
    served = pipeline.model(None)
    with closing(FeatureWorkers(1, max_tracks=8)) as workers:
        (worker,) = processes_of(workers)
        worker.kill()
        until(lambda: workers.counts().running == 0)
        with opened(workers, served) as windows, pipe_into(windows) as pcm:
            os.write(pcm, bytes(400))
            assert windows.receive(no_log).n_samples == 100
        assert workers.counts().replaced == 1


def test_a_worker_that_does_not_reply_is_replaced(
    pipeline: Pipeline, no_log: LogReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wholetrack.extraction.client._REPLY_TIMEOUT_S", 0.5)
    served = pipeline.model(None)
    with closing(FeatureWorkers(1, max_tracks=8)) as workers:
        (worker,) = processes_of(workers)
        worker.suspend()
        with (
            pytest.raises(WorkerLostError, match="has not replied"),
            opened(workers, served) as windows,
            pipe_into(windows),
        ):
            windows.receive(no_log)
        assert not worker.is_running()
        assert workers.counts().running == 1


def test_aborting_ends_the_wait_for_a_worker_that_does_not_reply(pipeline: Pipeline, no_log: LogReader) -> None:
    with closing(FeatureWorkers(1, max_tracks=8)) as workers:
        (worker,) = processes_of(workers)
        with opened(workers, pipeline.model(None)) as windows, pipe_into(windows):
            worker.suspend()
            with ThreadPoolExecutor(1) as thread:
                block = thread.submit(windows.receive, no_log)
                windows.abort()
                assert block.result(10).ended
        worker.resume()
        assert workers.counts().replaced == 0


class KillingObserver(Observer):
    """Kills all workers when a track has yielded audio, a limited number of times."""

    def __init__(self, workers: FeatureWorkers, *, times: int) -> None:
        self._workers = workers
        self._times = times

    def decoded(self, n_samples: int, peaks: NDArray[np.float32]) -> None:  # noqa: ARG002
        if n_samples and self._times:
            self._times -= 1
            for worker in self._workers._workers:
                worker._process.kill()


def test_a_prediction_survives_the_loss_of_its_worker(pipeline: Pipeline, song: Path) -> None:
    expected = pipeline.predict(song, max_duration_s=3600)
    found = pipeline.predict(song, max_duration_s=3600, observer=KillingObserver(pipeline.workers, times=1))
    assert shares(found) == shares(expected)


def test_a_prediction_survives_the_loss_of_the_launcher_of_the_workers(pipeline: Pipeline, song: Path) -> None:
    expected = pipeline.predict(song, max_duration_s=3600)
    psutil.Process(pipeline.workers._sandbox._connect().pid).kill()
    assert shares(pipeline.predict(song, max_duration_s=3600)) == shares(expected)


def test_a_recording_that_ends_its_workers_again_is_an_error(pipeline: Pipeline, song: Path) -> None:
    with pytest.raises(ServiceError) as caught:
        pipeline.predict(song, max_duration_s=3600, observer=KillingObserver(pipeline.workers, times=2))
    assert caught.value.kind is ErrorKind.INTERNAL_ERROR
    pipeline.predict(song, max_duration_s=3600)


def test_a_sandbox_that_does_not_start_is_a_startup_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(StartupError, match="the sandbox of the feature workers cannot be started"):
        FeatureWorkers(1, max_tracks=1)


def shares(found: TrackPrediction) -> list[tuple[str, float]]:
    """Return what is predicted. The batches in which windows are classified affect the last digits of a share."""
    return [(entry.genre, round(entry.share, 5)) for entry in found.summed_score.ranked]
