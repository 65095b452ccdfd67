"""The engine with a device that the test holds in its hands: order, fairness, bounds, failures."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from service.errors import ErrorKind, ServiceError
from service.inference.engine import Engine


class FakeDevice:
    """Answers with each window's own number; runs only when the test says so."""

    max_batch = 4
    device = "fake"
    answer_shape: tuple[int, ...] = (2,)

    def __init__(self) -> None:
        self.batches: list[list[float]] = []
        self.may_run = threading.Semaphore(0)
        self.entered = threading.Semaphore(0)
        self.failing = False

    def run(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        self.batches.append(windows[:, 0, 0].tolist())
        self.entered.release()
        self.may_run.acquire()
        if self.failing:
            raise RuntimeError("out of order")
        return np.stack([windows[:, 0, 0], 1 - windows[:, 0, 0]], axis=1)


def numbered(*numbers: float) -> NDArray[np.float32]:
    return np.array(numbers, dtype=np.float32)[:, None, None]


@pytest.fixture
def device() -> FakeDevice:
    return FakeDevice()


@pytest.fixture
def engine(device: FakeDevice) -> Iterator[Engine]:
    started = Engine(device, windows_waiting_per_track=8)
    yield started
    for _ in range(1000):
        device.may_run.release()
    started.close()
    assert not started.healthy


def test_answers_come_in_the_order_of_the_windows(device: FakeDevice, engine: Engine) -> None:
    for _ in range(10):
        device.may_run.release()
    with engine.open_track() as track:
        track.put(numbered(1, 2, 3))
        track.put(numbered())
        track.put(numbered(4, 5, 6, 7))
        assert track.finish()[:, 0].tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_a_track_without_windows_has_no_answers(engine: Engine) -> None:
    with engine.open_track() as track:
        assert len(track.finish()) == 0


def test_a_short_track_is_not_stuck_behind_a_long_one(device: FakeDevice, engine: Engine) -> None:
    with engine.open_track() as long, engine.open_track() as short:
        long.put(numbered(0))
        device.entered.acquire()
        long.put(numbered(1, 2, 3, 4, 5, 6))
        short.put(numbered(100, 101))
        for _ in range(10):
            device.may_run.release()
        assert short.finish()[:, 0].tolist() == [100, 101]
        assert long.finish()[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert device.batches == [[0], [1, 2, 100, 101], [3, 4, 5, 6]]


def test_a_full_track_waits_until_the_device_has_taken_some(device: FakeDevice, engine: Engine) -> None:
    with engine.open_track() as track, ThreadPoolExecutor(1) as thread:
        track.put(numbered(0))
        device.entered.acquire()
        track.put(numbered(*range(1, 9)))
        putting = thread.submit(track.put, numbered(9))
        with pytest.raises(TimeoutError):
            putting.result(timeout=0.2)
        device.may_run.release()
        putting.result(timeout=10)
        for _ in range(10):
            device.may_run.release()
        assert track.finish()[:, 0].tolist() == list(range(10))


def test_the_windows_of_an_abandoned_track_never_reach_the_device(device: FakeDevice, engine: Engine) -> None:
    with engine.open_track() as other:
        with engine.open_track() as track:
            track.put(numbered(0))
            device.entered.acquire()
            track.put(numbered(1, 2, 3))
            track.abandon(ServiceError(ErrorKind.CLIENT_GONE, "gone"))
            with pytest.raises(ServiceError) as caught:
                track.finish()
            assert caught.value.kind is ErrorKind.CLIENT_GONE
            with pytest.raises(ServiceError):
                track.put(numbered(4))
        other.put(numbered(100))
        for _ in range(10):
            device.may_run.release()
        assert other.finish()[:, 0].tolist() == [100]
    assert device.batches == [[0], [100]]


def test_abandoning_wakes_whoever_waits(device: FakeDevice, engine: Engine) -> None:
    with engine.open_track() as track, ThreadPoolExecutor(1) as thread:
        track.put(numbered(0))
        device.entered.acquire()
        waiting = thread.submit(track.finish)
        track.abandon(ServiceError(ErrorKind.DEADLINE_EXCEEDED, "late"))
        with pytest.raises(ServiceError, match="late"):
            waiting.result(timeout=10)


def test_a_failing_batch_fails_its_tracks_and_not_the_engine(device: FakeDevice, engine: Engine) -> None:
    device.failing = True
    with engine.open_track() as track:
        track.put(numbered(0))
        device.may_run.release()
        with pytest.raises(ServiceError) as caught:
            track.finish()
        assert caught.value.kind is ErrorKind.DEVICE_FAILED
    device.failing = False
    assert not engine.healthy
    for _ in range(10):
        device.may_run.release()
    with engine.open_track() as track:
        track.put(numbered(5))
        assert track.finish()[:, 0].tolist() == [5]
    assert engine.healthy


def test_a_device_that_recovers_while_nobody_asks_is_healthy_again(
    device: FakeDevice, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.inference.engine._RETRY_S", 0.01)
    device.failing = True
    with engine.open_track() as track:
        track.put(numbered(7))
        device.entered.acquire()
        device.may_run.release()
        with pytest.raises(ServiceError):
            track.finish()
    # The retry hears silence, not the window that may have been the cause.
    device.entered.acquire()
    assert device.batches[-1] == [0.0]
    device.failing = False
    device.may_run.release()
    device.entered.acquire(timeout=0.2)
    assert engine.healthy


@pytest.mark.parametrize(
    "answer",
    [
        np.zeros((1, 2), dtype=np.float32),
        np.zeros(2, dtype=np.float32),
        np.zeros((2, 3), dtype=np.float32),
        np.zeros((2, 2, 2), dtype=np.float32),
        None,
    ],
)
def test_an_answer_that_breaks_the_contract_fails_its_tracks(answer: NDArray[np.float32] | None) -> None:
    class Odd(FakeDevice):
        def run(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:  # noqa: ARG002
            return answer  # type: ignore[return-value]

    engine = Engine(Odd())
    with engine.open_track() as track:
        track.put(numbered(0, 1))
        with pytest.raises(ServiceError) as caught:
            track.finish()
        assert caught.value.kind is ErrorKind.DEVICE_FAILED
    engine.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dying_thread_takes_no_waiting_track_with_it() -> None:
    class Deadly(FakeDevice):
        def run(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:  # noqa: ARG002
            self.entered.release()
            self.may_run.acquire()
            raise SystemExit

    device = Deadly()
    engine = Engine(device)
    with engine.open_track() as asked, engine.open_track() as waiting, ThreadPoolExecutor(2) as threads:
        asked.put(numbered(0))
        device.entered.acquire()
        waiting.put(numbered(1))
        answers = [threads.submit(track.finish) for track in (asked, waiting)]
        device.may_run.release()
        for answer in answers:
            with pytest.raises(ServiceError) as caught:
                answer.result(timeout=10)
            assert caught.value.kind is ErrorKind.DEVICE_FAILED
    engine.close()
    assert not engine.healthy
    with pytest.raises(ServiceError):
        engine.open_track()


def test_a_closed_engine_takes_no_track() -> None:
    engine = Engine(FakeDevice())
    engine.close()
    with pytest.raises(ServiceError) as caught:
        engine.open_track()
    assert caught.value.kind is ErrorKind.DEVICE_FAILED
