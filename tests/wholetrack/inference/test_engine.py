"""The engine with a device that the test holds in its hands: order, fairness, bounds, failures."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.waiting import until
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.inference.engine import Engine
from wholetrack.inference.worker import Classifier


class FakeDevice:
    """Answers with each window's own number; runs only when the test says so."""

    max_batch = 4
    device, precision = "fake", "float32"
    output_shape: tuple[int, ...] = (2,)
    memory = None

    def __init__(self) -> None:
        self.batches: list[list[float]] = []
        self.may_run = threading.Semaphore(0)
        self.entered = threading.Semaphore(0)
        self.failing = self.dies = False
        self.poison: float | None = None
        self.largest = self.max_batch

    def run(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        self.batches.append(windows[:, 0, 0].tolist())
        self.entered.release()
        self.may_run.acquire()
        if self.dies:
            raise SystemExit
        if self.failing or self.poison in self.batches[-1] or len(windows) > self.largest:
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


def test_a_track_gets_as_much_of_a_batch_as_its_weight(device: FakeDevice, engine: Engine) -> None:
    with engine.open_track() as light, engine.open_track(weight=3) as heavy, engine.open_track() as third:
        light.put(numbered(0))
        device.entered.acquire()
        light.put(numbered(1, 2, 3, 4))
        heavy.put(numbered(101, 102, 103, 104, 105, 106, 107))
        third.put(numbered(201))
        for _ in range(10):
            device.may_run.release()
        assert heavy.finish()[:, 0].tolist() == [101, 102, 103, 104, 105, 106, 107]
        assert light.finish()[:, 0].tolist() == [0, 1, 2, 3, 4]
        assert third.finish()[:, 0].tolist() == [201]
    # Of four places one for weight 1 and three for weight 3; whoever finds the batch full is the first of the next.
    assert device.batches == [[0], [1, 101, 102, 103], [201, 2, 104, 105], [3, 106, 107, 4]]


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


def test_settling_waits_for_answers_but_not_for_ever(device: FakeDevice, engine: Engine) -> None:
    with engine.open_track() as track, ThreadPoolExecutor(1) as thread:
        track.put(numbered(1, 2))
        device.entered.acquire()
        track.settle(0.05)
        settling = thread.submit(track.settle, 60.0)
        device.may_run.release()
        settling.result(timeout=10)
        assert track.finish()[:, 0].tolist() == [1, 2]


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
        device.may_run.release(2)
        with pytest.raises(ServiceError) as caught:
            track.finish()
        assert caught.value.kind is ErrorKind.DEVICE_FAILED
    until(lambda: not engine.healthy)
    device.failing = False
    for _ in range(10):
        device.may_run.release()
    with engine.open_track() as track:
        track.put(numbered(5))
        assert track.finish()[:, 0].tolist() == [5]
    assert engine.healthy


def test_a_device_that_recovers_while_nobody_asks_is_healthy_again(
    device: FakeDevice, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wholetrack.inference.engine._RETRY_S", 0.01)
    device.failing = True
    with engine.open_track() as track:
        track.put(numbered(7))
        device.entered.acquire()
        device.may_run.release()
        with pytest.raises(ServiceError):
            track.finish()
    # Every retry hears silence, not the window that may have been the cause.
    for _ in range(3):
        device.entered.acquire()
        assert device.batches[-1] == [0.0]
        device.may_run.release()
    until(lambda: not engine.healthy)
    device.failing = False
    device.may_run.release(100)
    until(lambda: engine.healthy)


@pytest.mark.parametrize(
    "answer",
    [
        np.zeros((3, 2), dtype=np.float32),
        np.zeros(2, dtype=np.float32),
        np.zeros((2, 3), dtype=np.float32),
        np.zeros((2, 2, 2), dtype=np.float32),
        np.full((1, 2), np.nan, dtype=np.float32),
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


def test_one_poisoned_track_fails_alone(device: FakeDevice, engine: Engine) -> None:
    device.poison = 13.0
    with engine.open_track() as first, engine.open_track() as poisoned, engine.open_track() as last:
        first.put(numbered(0))
        device.entered.acquire()
        first.put(numbered(1, 2))
        poisoned.put(numbered(12, 13, 14))
        last.put(numbered(3))
        device.may_run.release(100)
        assert first.finish()[:, 0].tolist() == [0, 1, 2]
        assert last.finish()[:, 0].tolist() == [3]
        with pytest.raises(ServiceError) as caught:
            poisoned.finish()
    assert caught.value.kind is ErrorKind.DEVICE_FAILED
    assert engine.healthy
    counts = engine.counts().devices["fake"]
    assert counts.failures == sum(13.0 in batch for batch in device.batches) >= 2
    assert sum(size * times for size, times in counts.batches.items()) >= 4


def test_several_threads_keep_the_order_of_a_track(device: FakeDevice) -> None:
    engine = Engine(*[device] * 3, windows_waiting_per_track=100)
    with engine.open_track() as track:
        for first in range(0, 40, 4):
            track.put(numbered(*range(first, first + 4)))
        for _ in range(3):
            device.entered.acquire()
        # Three batches are in the device at once; whichever ends first, answers are those of their windows.
        device.may_run.release(100)
        assert track.finish()[:, 0].tolist() == list(range(40))
    assert engine.counts().devices["fake"].batches == {4: 10}
    engine.close()


def test_one_of_several_threads_hangs(device: FakeDevice) -> None:
    engine = Engine(*[device] * 2, hang_s=0.3)
    with engine.open_track() as hanging:
        hanging.put(numbered(0))
        device.entered.acquire()
        with pytest.raises(ServiceError):
            hanging.finish()
    device.may_run.release(100)
    until(lambda: engine.healthy)
    with engine.open_track() as track:
        track.put(numbered(5))
        assert track.finish()[:, 0].tolist() == [5]
    assert engine.counts().devices["fake"].replacements >= 1
    engine.close()


def test_threads_that_hang_at_once_are_replaced_at_once(device: FakeDevice) -> None:
    """A driver that holds up every thread is one event, not a reason for despair."""
    second, despaired = FakeDevice(), threading.Event()
    second.may_run.release(100)
    engine = Engine(*[device] * 5, hang_s=0.5, reopen=lambda _: second, despair=despaired.set)
    with engine.open_track() as hanging:
        for first in range(0, 20, 4):
            hanging.put(numbered(*range(first, first + 4)))
            device.entered.acquire()
        with pytest.raises(ServiceError):
            hanging.finish()
    until(lambda: engine.healthy)
    with engine.open_track() as track:
        track.put(numbered(5))
        assert track.finish()[:, 0].tolist() == [5]
    assert engine.counts().devices["fake"].replacements == 5
    assert not despaired.is_set()
    device.may_run.release(100)
    engine.close()


def test_a_process_that_stood_still_has_no_hanging_device() -> None:
    """A container that is paused for longer than a run may take, in the middle of one, and goes on."""
    program = """
import time
import numpy as np
from wholetrack.inference.engine import Engine
from wholetrack.inference.worker import Classifier

class Slow:
    max_batch, device, precision, output_shape, memory = 4, "slow", "float32", (2,), None

    def run(self, windows):
        print("running", flush=True)
        for _ in range(20):
            time.sleep(0.05)
        return np.zeros((len(windows), 2), dtype=np.float32)

engine = Engine(Slow(), hang_s=3)
with engine.open_track() as track:
    track.put(np.zeros((1, 1, 1), dtype=np.float32))
    answers = track.finish()
engine.close()
print(len(answers), engine.counts().devices["slow"].replacements)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(6)
        process.send_signal(signal.SIGCONT)
        assert process.stdout.read() == "1 0\n"


def test_a_batch_too_large_for_the_device_is_answered_in_pieces(device: FakeDevice, engine: Engine) -> None:
    device.largest = 1
    for _ in range(20):
        device.may_run.release()
    with engine.open_track() as track:
        track.put(numbered(1, 2, 3, 4))
        assert track.finish()[:, 0].tolist() == [1, 2, 3, 4]
    assert engine.healthy


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dying_thread_takes_no_waiting_track_with_it_and_is_replaced(device: FakeDevice) -> None:
    second = FakeDevice()
    second.may_run.release(100)
    engine = Engine(device, reopen=lambda _: second)
    device.dies = True
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
    until(lambda: engine.healthy)
    with engine.open_track() as track:
        track.put(numbered(5))
        assert track.finish()[:, 0].tolist() == [5]
    assert engine.counts().devices["fake"].replacements == 1
    engine.close()
    assert not engine.healthy


def test_a_hanging_device_is_given_up_and_what_it_says_later_counts_for_nothing(device: FakeDevice) -> None:
    second = FakeDevice()
    second.may_run.release(100)
    engine = Engine(device, hang_s=0.2, reopen=lambda _: second)
    with engine.open_track() as track, ThreadPoolExecutor(1) as threads:
        track.put(numbered(0))
        device.entered.acquire()
        with pytest.raises(ServiceError) as caught:
            threads.submit(track.finish).result(timeout=10)
        assert caught.value.kind is ErrorKind.DEVICE_FAILED
    until(lambda: engine.healthy)
    device.may_run.release(100)
    with engine.open_track() as track:
        track.put(numbered(7, 8))
        assert track.finish()[:, 0].tolist() == [7, 8]
    assert device.batches == [[0]]
    assert engine.counts().devices["fake"].replacements == 1
    engine.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_device_that_is_replaced_in_vain_is_despaired_of(device: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wholetrack.inference.engine._RETRY_S", 0.01)
    device.dies = True
    device.may_run.release(100)
    despaired = threading.Event()
    engine = Engine(device, despair=despaired.set)
    with engine.open_track() as track:
        track.put(numbered(0))
        with pytest.raises(ServiceError):
            track.finish()
    assert despaired.wait(timeout=10)
    assert not engine.healthy
    engine.close()


def test_a_device_that_cannot_be_opened_again_is_tried_until_it_can(
    device: FakeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wholetrack.inference.engine._RETRY_S", 0.01)
    second, attempts = FakeDevice(), 0
    second.may_run.release(100)

    def reopen(_: Classifier) -> FakeDevice:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise RuntimeError("still resetting")
        return second

    engine = Engine(device, hang_s=0.2, reopen=reopen)
    with engine.open_track() as track:
        track.put(numbered(0))
        with pytest.raises(ServiceError):
            track.finish()
    until(lambda: engine.healthy)
    assert attempts == 2
    device.may_run.release(100)
    engine.close()


class HangsOverTwo(FakeDevice):
    """Answers at once, but never about the window 2."""

    def run(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        if windows[0, 0, 0] != 2:
            self.may_run.release()
        return super().run(windows)


def test_threads_that_hang_again_and_again_end_in_despair() -> None:
    """Each replacement answers, so none was in vain; but each thread that hangs keeps what it holds."""
    despaired, devices = threading.Event(), [HangsOverTwo()]

    def reopen(_: Classifier) -> FakeDevice:
        devices.append(HangsOverTwo())
        return devices[-1]

    engine = Engine(devices[0], hang_s=0.5, reopen=reopen, despair=despaired.set)
    for _ in range(5):
        assert not despaired.is_set()
        with engine.open_track() as track:
            track.put(numbered(1))
            assert track.finish()[:, 0].tolist() == [1]
            track.put(numbered(2))
            with pytest.raises(ServiceError):
                track.finish()
        until(lambda: despaired.is_set() or engine.healthy)
    assert despaired.is_set()
    for hanging in devices:
        hanging.may_run.release(10)
    engine.close()


def test_opening_that_hangs_ends_in_despair_too(device: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wholetrack.inference.engine._RETRY_S", 0.01)
    monkeypatch.setattr("wholetrack.inference.engine._LONGEST_OPENING_S", 0.1)
    despaired, forever = threading.Event(), threading.Event()

    def reopen(_: Classifier) -> FakeDevice:
        forever.wait()
        return device

    engine = Engine(device, hang_s=0.2, reopen=reopen, despair=despaired.set)
    with engine.open_track() as track:
        track.put(numbered(0))
        with pytest.raises(ServiceError):
            track.finish()
    assert despaired.wait(timeout=10)
    forever.set()
    device.may_run.release(100)
    engine.close()


@pytest.mark.parametrize("threads", [1, 2])
def test_closing_answers_what_is_waiting(device: FakeDevice, threads: int) -> None:
    engine = Engine(*[device] * threads)
    with engine.open_track() as track, ThreadPoolExecutor(1) as closing:
        track.put(numbered(1, 2, 3, 4, 5, 6))
        device.entered.acquire()
        closed = closing.submit(engine.close)
        with pytest.raises(TimeoutError):
            closed.result(timeout=0.2)
        device.may_run.release(100)
        assert track.finish()[:, 0].tolist() == [1, 2, 3, 4, 5, 6]
        closed.result(timeout=10)


def test_a_closed_engine_takes_no_track() -> None:
    engine = Engine(FakeDevice())
    engine.close()
    with pytest.raises(ServiceError) as caught:
        engine.open_track()
    assert caught.value.kind is ErrorKind.DEVICE_FAILED
