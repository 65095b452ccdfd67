"""Workers that hang, die or always raise: restarted once, then the engine is unrecoverable."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.harness.devices import FakeClock, FakeDevice, numbered, numbers_of
from tests.harness.waiting import until
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.inference.engine import Engine
from wholetrack.inference.worker import Failure

pytestmark = [pytest.mark.timing, pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")]

_HANG_S = 60.0


class EngineUnderTest:
    """An engine on one fake device, and replacements for it in the order in which they are needed."""

    def __init__(self, *replacements: FakeDevice, n_workers: int = 1) -> None:
        self.clock = FakeClock()
        self.device = FakeDevice()
        self.replacements = list(replacements)
        self.failures: list[Failure] = []
        self.unrecoverable = threading.Event()
        self.engine = Engine(
            *[self.device] * n_workers,
            run_timeout_s=_HANG_S,
            reopen=lambda _: self.replacements.pop(0),
            on_unrecoverable=self._note,
            clock=self.clock,
        )
        self._all = [self.device, *replacements]

    def _note(self, failure: Failure) -> None:
        self.failures.append(failure)
        self.unrecoverable.set()

    def pass_time_limit(self) -> None:
        """Let every run in progress exceed its time limit, and make the supervisor check."""
        self.clock.now += _HANG_S + 1
        self.engine._supervisor._wake.set()

    def classify(self, *numbers: float) -> list[float]:
        with self.engine.open_track() as track:
            track.put(numbered(*numbers))
            outputs: list[float] = numbers_of(track)
        return outputs

    def fail(self, *numbers: float) -> ErrorKind:
        """Classify windows, expecting an error, and return its kind."""
        with pytest.raises(ServiceError) as caught:
            self.classify(*numbers)
        return caught.value.kind

    def close(self) -> None:
        for device in self._all:
            device.permits.release(1000)
        self.engine.close()


@pytest.fixture
def start() -> Iterator[Callable[..., EngineUnderTest]]:
    made: list[EngineUnderTest] = []

    def make(*replacements: FakeDevice, n_workers: int = 1) -> EngineUnderTest:
        made.append(EngineUnderTest(*replacements, n_workers=n_workers))
        return made[-1]

    yield make
    for one in made:
        one.close()


def working() -> FakeDevice:
    return FakeDevice(permits=1000)


def dying() -> FakeDevice:
    device = working()
    device.dies = True
    return device


def raising(message: str = "out of order") -> FakeDevice:
    device = working()
    device.fails, device.message = True, message
    return device


def test_a_worker_that_dies_fails_all_tracks_and_is_restarted(start: Callable[..., EngineUnderTest]) -> None:
    one = start(working())
    one.device.dies = True
    with one.engine.open_track() as running, one.engine.open_track() as waiting, ThreadPoolExecutor(2) as threads:
        running.put(numbered(0))
        one.device.entered.acquire()
        waiting.put(numbered(1))
        results = [threads.submit(track.finish) for track in (running, waiting)]
        one.device.permits.release()
        for result in results:
            with pytest.raises(ServiceError) as caught:
                result.result(timeout=60)
            assert caught.value.kind is ErrorKind.DEVICE_FAILED
    until(lambda: one.engine.healthy)
    assert one.classify(5) == [5]
    assert one.engine.counts().devices["fake"].replacements == 1
    assert not one.unrecoverable.is_set()


def test_a_restarted_worker_classifies_silence_before_it_takes_windows(start: Callable[..., EngineUnderTest]) -> None:
    replacement = FakeDevice()
    one = start(replacement)
    one.device.dies = True
    one.device.permits.release()
    one.fail(1)
    replacement.entered.acquire()
    assert not one.engine.healthy
    replacement.permits.release(10)
    assert one.classify(7) == [7]
    assert replacement.batches == [[0], [7]]


def test_a_worker_that_hangs_is_abandoned_and_its_late_output_is_ignored(start: Callable[..., EngineUnderTest]) -> None:
    one = start(working())
    with one.engine.open_track() as track, ThreadPoolExecutor(1) as threads:
        track.put(numbered(0))
        one.device.entered.acquire()
        result = threads.submit(track.finish)
        one.pass_time_limit()
        with pytest.raises(ServiceError) as caught:
            result.result(timeout=60)
        assert caught.value.kind is ErrorKind.DEVICE_FAILED
    until(lambda: one.engine.healthy)
    one.device.permits.release(100)
    assert one.classify(7, 8) == [7, 8]
    assert one.device.batches == [[0]]
    counts = one.engine.counts().devices["fake"]
    assert counts.replacements == 1
    assert counts.batches == {2: 1}


def test_one_of_several_workers_hangs(start: Callable[..., EngineUnderTest]) -> None:
    one = start(working(), n_workers=2)
    with one.engine.open_track() as track, ThreadPoolExecutor(1) as threads:
        track.put(numbered(0))
        one.device.entered.acquire()
        result = threads.submit(track.finish)
        one.pass_time_limit()
        with pytest.raises(ServiceError):
            result.result(timeout=60)
    assert one.engine.counts().devices["fake"].replacements == 1
    one.device.permits.release(100)
    assert one.classify(5) == [5]


def test_workers_that_hang_at_the_same_time_are_all_restarted(start: Callable[..., EngineUnderTest]) -> None:
    """A driver that blocks every worker is one event: it does not make the engine unrecoverable."""
    one = start(working(), n_workers=5)
    with one.engine.open_track() as track, ThreadPoolExecutor(1) as threads:
        for first in range(0, 20, 4):
            track.put(numbered(*range(first, first + 4)))
            one.device.entered.acquire()
        result = threads.submit(track.finish)
        one.pass_time_limit()
        with pytest.raises(ServiceError):
            result.result(timeout=60)
    until(lambda: one.engine.healthy)
    assert one.classify(5) == [5]
    assert one.engine.counts().devices["fake"].replacements == 5
    assert not one.unrecoverable.is_set()


def test_a_hung_thread_beyond_the_number_of_workers_is_unrecoverable(start: Callable[..., EngineUnderTest]) -> None:
    """Each replacement classifies something before it hangs, but each hung thread keeps its session."""
    # The second device may classify silence and one window more.
    second, third = FakeDevice(permits=2), FakeDevice()
    one = start(second, third)
    one.device.permits.release()
    for device in (one.device, second):
        until(lambda: one.engine.healthy)
        assert one.classify(1) == [1]
        with one.engine.open_track() as track, ThreadPoolExecutor(1) as threads:
            track.put(numbered(2))
            until(lambda device=device: device.batches[-1:] == [[2]])  # type: ignore[misc]
            result = threads.submit(track.finish)
            one.pass_time_limit()
            with pytest.raises(ServiceError):
                result.result(timeout=60)
    assert one.unrecoverable.wait(timeout=60)
    assert one.failures == [Failure.HUNG]
    assert third.batches == []


def test_a_run_in_a_suspended_process_does_not_count_as_hung() -> None:
    """The clock jumps while the supervisor sleeps, as it does when a container is paused."""
    clock, device = FakeClock(), FakeDevice()
    engine = Engine(device, run_timeout_s=0.4, clock=clock)
    with engine.open_track() as track:
        track.put(numbered(1))
        device.entered.acquire()
        clock.now += 1000
        until(lambda: engine._supervisor.workers[0]._excused_s > 900)
        device.permits.release()
        assert numbers_of(track) == [1]
    assert engine.counts().devices["fake"].replacements == 0
    engine.close()


def test_a_process_that_is_stopped_and_continued_has_no_hung_worker() -> None:
    program = """
import time
from wholetrack.contracts import Rows
from wholetrack.inference.engine import Engine

class Slow:
    max_batch, device, precision, memory = 4, "slow", "float32", None
    window_shapes, output_shapes = ((1, 1),), ((2,),)

    def run(self, windows):
        print("running", flush=True)
        for _ in range(10):
            time.sleep(0.05)
        return Rows.zeros(len(windows), self.output_shapes)

engine = Engine(Slow(), run_timeout_s=4)
with engine.open_track() as track:
    track.put(Rows.zeros(1, Slow.window_shapes))
    outputs = track.finish()
engine.close()
print(len(outputs.rows[0]), engine.counts().devices["slow"].replacements)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(7)
        process.send_signal(signal.SIGCONT)
        assert process.stdout.read() == "1 0\n"


def test_a_device_that_always_raises_is_reopened(start: Callable[..., EngineUnderTest]) -> None:
    one = start(working())
    one.device.fails = True
    one.device.permits.release(100)
    assert one.fail(3) is ErrorKind.DEVICE_FAILED
    until(lambda: one.replacements == [] and one.engine.healthy)
    # The silent window showed that the device was at fault, not the track.
    assert one.device.batches == [[3], [0]]
    assert one.classify(5) == [5]
    assert one.engine.available


def test_a_device_that_always_raises_is_reopened_once_only(start: Callable[..., EngineUnderTest]) -> None:
    """It used to be retried forever: 81 attempts in 4 s, while the health check kept succeeding."""
    replacement, unused = raising(), working()
    one = start(replacement, unused)
    one.device.fails = True
    one.device.permits.release(100)
    one.fail(3)
    assert one.unrecoverable.wait(timeout=60)
    assert one.failures == [Failure.ALWAYS_RAISES]
    assert replacement.batches == [[0]]
    assert one.replacements == [unused]
    assert not one.engine.available
    assert one.engine.unavailable_reason == "every run raises an error"
    assert not one.engine.healthy
    assert one.fail(4) is ErrorKind.MODEL_UNAVAILABLE


def test_a_track_accepted_during_a_restart_fails_if_the_restart_fails(start: Callable[..., EngineUnderTest]) -> None:
    replacement = FakeDevice()
    replacement.fails = True
    one = start(replacement)
    one.device.fails = True
    one.device.permits.release(100)
    one.fail(3)
    replacement.entered.acquire()
    with one.engine.open_track() as track, ThreadPoolExecutor(1) as threads:
        track.put(numbered(1))
        result = threads.submit(track.finish)
        replacement.permits.release()
        with pytest.raises(ServiceError) as caught:
            result.result(timeout=60)
    assert caught.value.kind in {ErrorKind.DEVICE_FAILED, ErrorKind.MODEL_UNAVAILABLE}


def test_a_worker_may_be_restarted_again_after_it_has_classified_something(
    start: Callable[..., EngineUnderTest],
) -> None:
    second, third = working(), working()
    one = start(second, third)
    one.device.dies = True
    one.device.permits.release()
    one.fail(1)
    until(lambda: one.engine.healthy)
    assert one.classify(2) == [2]
    second.dies = True
    one.fail(3)
    until(lambda: one.engine.healthy)
    assert one.classify(4) == [4]
    assert one.engine.counts().devices["fake"].replacements == 2
    assert not one.unrecoverable.is_set()


def test_a_worker_that_dies_again_at_once_is_unrecoverable(start: Callable[..., EngineUnderTest]) -> None:
    one = start(dying(), working())
    one.device.dies = True
    one.device.permits.release()
    one.fail(1)
    assert one.unrecoverable.wait(timeout=60)
    assert one.failures == [Failure.DIED]
    assert one.fail(2) is ErrorKind.MODEL_UNAVAILABLE


def test_a_session_that_cannot_be_reopened_is_unrecoverable() -> None:
    def reopen(_: object) -> FakeDevice:
        raise RuntimeError("still resetting")

    device, unrecoverable = dying(), threading.Event()
    engine = Engine(device, reopen=reopen, on_unrecoverable=lambda _: unrecoverable.set())
    with engine.open_track() as track:
        track.put(numbered(0))
        with pytest.raises(ServiceError):
            track.finish()
    assert unrecoverable.wait(timeout=60)
    engine.close()


def test_reopening_that_hangs_is_unrecoverable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wholetrack.inference.supervisor._REOPEN_TIMEOUT_S", 0.1)
    device, unrecoverable, resume = dying(), threading.Event(), threading.Event()

    def reopen(_: object) -> FakeDevice:
        resume.wait()
        return device

    engine = Engine(device, reopen=reopen, on_unrecoverable=lambda _: unrecoverable.set())
    with engine.open_track() as track:
        track.put(numbered(0))
        with pytest.raises(ServiceError):
            track.finish()
    assert unrecoverable.wait(timeout=60)
    resume.set()
    engine.close()


@pytest.mark.parametrize(
    ("message", "is_lost"),
    [
        ("CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=x", True),
        ("CUDA failure 719: unspecified launch failure", True),
        ("CUDA error 702", True),
        ("CUDA failure 2: out of memory", False),
        ("CUDA failure 720: cooperative launch too large", False),
        ("CUDA failure 7000", False),
    ],
)
def test_a_lost_cuda_context_is_not_reopened(
    start: Callable[..., EngineUnderTest],
    message: str,
    is_lost: bool,  # noqa: FBT001
) -> None:
    replacement = working()
    one = start(replacement)
    one.device.fails, one.device.message = True, message
    one.device.permits.release(100)
    one.fail(1, 2, 3, 4)
    if is_lost:
        assert one.unrecoverable.wait(timeout=60)
        assert one.failures == [Failure.CUDA_CONTEXT_LOST]
        assert one.replacements == [replacement]
        # The batch is not bisected, and no silent window is tried.
        assert one.device.batches == [[1, 2, 3, 4]]
    else:
        until(lambda: one.replacements == [])
