"""The engine on a device that the test controls: order, fairness, limits, and tracks that fail."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.harness.devices import FakeDevice, numbered, numbers_of
from tests.harness.waiting import until
from wholetrack.contracts import Rows, Windows
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.inference.engine import Engine

pytestmark = pytest.mark.timing


@pytest.fixture
def device() -> FakeDevice:
    return FakeDevice()


@pytest.fixture
def engine(device: FakeDevice) -> Iterator[Engine]:
    started = Engine(device, max_waiting_per_track=8)
    yield started
    device.permits.release(1000)
    started.close()
    assert not started.healthy


def test_outputs_are_in_the_order_of_the_windows(device: FakeDevice, engine: Engine) -> None:
    device.permits.release(10)
    with engine.open_track() as track:
        track.put(numbered(1, 2, 3))
        track.put(numbered())
        track.put(numbered(4, 5, 6, 7))
        assert numbers_of(track) == [1, 2, 3, 4, 5, 6, 7]


def test_a_track_does_not_keep_the_outputs_of_others_in_its_batch(device: FakeDevice, engine: Engine) -> None:
    received: list[Rows] = []
    with engine.open_track() as first, engine.open_track() as second:
        first.on_output = lambda _, outputs: received.append(outputs)
        first.put(numbered(0))
        device.entered.acquire()
        first.put(numbered(1))
        second.put(numbered(101, 102))
        device.permits.release(10)
        assert numbers_of(first) == [0, 1]
        assert numbers_of(second) == [101, 102]
    assert device.batches == [[0], [1, 101, 102]]
    assert all(array.base is None for outputs in received for array in outputs.arrays)


def test_a_worker_that_waits_keeps_no_windows(device: FakeDevice, engine: Engine) -> None:
    device.permits.release(10)
    windows = numbered(1, 2)
    kept = weakref.ref(windows.arrays[1])
    with engine.open_track() as track:
        track.put(windows)
        del windows
        assert numbers_of(track) == [1, 2]
    until(lambda: kept() is None)


def test_outputs_that_cannot_be_converted_fail_their_track_only(device: FakeDevice, engine: Engine) -> None:
    def broken(outputs: Rows) -> Rows:
        raise MemoryError(f"no memory for {len(outputs)} windows")

    with engine.open_track(convert=broken) as first, engine.open_track() as second:
        second.put(numbered(0))
        device.entered.acquire()
        first.put(numbered(1))
        second.put(numbered(101))
        device.permits.release(10)
        with pytest.raises(ServiceError) as error:
            first.finish()
        assert numbers_of(second) == [0, 101]
    assert device.batches == [[0], [1, 101]]
    assert error.value.kind is ErrorKind.DEVICE_FAILED
    assert engine.healthy


def test_a_track_without_windows_has_no_outputs(engine: Engine) -> None:
    with engine.open_track() as track:
        assert track.finish() is None


def test_a_short_track_does_not_wait_behind_a_long_one(device: FakeDevice, engine: Engine) -> None:
    with engine.open_track() as long, engine.open_track() as short:
        long.put(numbered(0))
        device.entered.acquire()
        long.put(numbered(1, 2, 3, 4, 5, 6))
        short.put(numbered(100, 101))
        device.permits.release(10)
        assert numbers_of(short) == [100, 101]
        assert numbers_of(long) == [0, 1, 2, 3, 4, 5, 6]
    assert device.batches == [[0], [1, 2, 100, 101], [3, 4, 5, 6]]


def test_a_tracks_share_of_a_batch_is_proportional_to_its_weight(device: FakeDevice, engine: Engine) -> None:
    with engine.open_track() as light, engine.open_track(weight=3) as heavy, engine.open_track() as third:
        light.put(numbered(0))
        device.entered.acquire()
        light.put(numbered(1, 2, 3, 4))
        heavy.put(numbered(101, 102, 103, 104, 105, 106, 107))
        third.put(numbered(201))
        device.permits.release(10)
        assert numbers_of(heavy) == [101, 102, 103, 104, 105, 106, 107]
        assert numbers_of(light) == [0, 1, 2, 3, 4]
        assert numbers_of(third) == [201]
    # Of four windows, one is for weight 1 and three are for weight 3. A track left out of a full batch is first in the
    # next one.
    assert device.batches == [[0], [1, 101, 102, 103], [201, 2, 104, 105], [3, 106, 107, 4]]


def test_a_batch_takes_several_windows_in_a_row_if_they_cost_less_together(device: FakeDevice) -> None:
    engine = Engine(device, min_share=2)
    try:
        with engine.open_track() as first, engine.open_track() as second, engine.open_track() as third:
            first.put(numbered(0))
            device.entered.acquire()
            first.put(numbered(1, 2, 3))
            second.put(numbered(101, 102, 103))
            third.put(numbered(201))
            device.permits.release(10)
            assert numbers_of(first) == [0, 1, 2, 3]
            assert numbers_of(second) == [101, 102, 103]
            assert numbers_of(third) == [201]
    finally:
        engine.close()
    # One at a time, the second batch would be of all three tracks.
    assert device.batches == [[0], [1, 2, 101, 102], [201, 3, 103]]


def test_put_blocks_while_too_many_windows_of_a_track_wait(device: FakeDevice, engine: Engine) -> None:
    with engine.open_track() as track, ThreadPoolExecutor(1) as thread:
        track.put(numbered(0))
        device.entered.acquire()
        track.put(numbered(*range(1, 9)))
        putting = thread.submit(track.put, numbered(9))
        with pytest.raises(TimeoutError):
            putting.result(timeout=0.2)
        device.permits.release()
        putting.result(timeout=60)
        device.permits.release(10)
        assert numbers_of(track) == list(range(10))


def test_wait_settled_returns_when_all_windows_are_classified_or_the_time_is_up(
    device: FakeDevice, engine: Engine
) -> None:
    with engine.open_track() as track, ThreadPoolExecutor(1) as thread:
        track.put(numbered(1, 2))
        device.entered.acquire()
        track.wait_settled(0.05)
        settling = thread.submit(track.wait_settled, 600.0)
        device.permits.release()
        settling.result(timeout=60)
        assert numbers_of(track) == [1, 2]


def test_the_windows_of_an_abandoned_track_do_not_reach_the_device(device: FakeDevice, engine: Engine) -> None:
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
        device.permits.release(10)
        assert numbers_of(other) == [100]
    assert device.batches == [[0], [100]]


def test_abandoning_a_track_wakes_the_thread_that_waits_for_it(device: FakeDevice, engine: Engine) -> None:
    with engine.open_track() as track, ThreadPoolExecutor(1) as thread:
        track.put(numbered(0))
        device.entered.acquire()
        waiting = thread.submit(track.finish)
        track.abandon(ServiceError(ErrorKind.DEADLINE_EXCEEDED, "late"))
        with pytest.raises(ServiceError, match="late"):
            waiting.result(timeout=60)


@pytest.mark.parametrize(
    "output",
    [
        Rows.zeros(3, ((2,), (1,))),
        Rows.zeros(2, ((), (1,))),
        Rows.zeros(2, ((3,), (1,))),
        Rows.zeros(2, ((2, 2), (1,))),
        Rows.zeros(2, ((2,),)),
        Rows.zeros(2, ((2,), (2,))),
        Rows.of(np.full((2, 2), np.nan, dtype=np.float32), np.zeros((2, 1), dtype=np.float32)),
        Rows.of(np.zeros((2, 2), dtype=np.float32), np.full((2, 1), np.inf, dtype=np.float32)),
        None,
    ],
)
def test_outputs_of_the_wrong_shape_or_value_fail_their_tracks(output: Rows | None) -> None:
    class Odd(FakeDevice):
        def run(self, windows: Windows) -> Rows:  # noqa: ARG002
            return output  # type: ignore[return-value]

    engine = Engine(Odd())
    with engine.open_track() as track:
        track.put(numbered(0, 1))
        with pytest.raises(ServiceError) as caught:
            track.finish()
        assert caught.value.kind is ErrorKind.DEVICE_FAILED
    engine.close()


def test_a_track_that_makes_batches_fail_fails_alone(device: FakeDevice, engine: Engine) -> None:
    device.poison = 13.0
    with engine.open_track() as first, engine.open_track() as poisoned, engine.open_track() as last:
        first.put(numbered(0))
        device.entered.acquire()
        first.put(numbered(1, 2))
        poisoned.put(numbered(12, 13, 14))
        last.put(numbered(3))
        device.permits.release(100)
        assert numbers_of(first) == [0, 1, 2]
        assert numbers_of(last) == [3]
        with pytest.raises(ServiceError) as caught:
            poisoned.finish()
    assert caught.value.kind is ErrorKind.DEVICE_FAILED
    assert engine.healthy
    counts = engine.counts().devices["fake"]
    assert counts.failures == sum(13.0 in batch for batch in device.batches) >= 2
    assert sum(size * times for size, times in counts.batches.items()) >= 4


def test_a_single_track_that_fails_does_not_make_the_device_unhealthy(device: FakeDevice, engine: Engine) -> None:
    device.poison = 13.0
    device.permits.release(100)
    with engine.open_track() as track:
        track.put(numbered(13))
        with pytest.raises(ServiceError):
            track.finish()
    with engine.open_track() as track:
        track.put(numbered(5))
        assert numbers_of(track) == [5]
    # Between the two, the worker ran a silent window to find out whether the device or the track was at fault.
    assert device.batches == [[13], [0], [5]]
    assert engine.healthy
    assert engine.counts().devices["fake"].replacements == 0


def test_a_batch_too_large_for_the_device_is_split(device: FakeDevice, engine: Engine) -> None:
    device.largest = 1
    device.permits.release(20)
    with engine.open_track() as track:
        track.put(numbered(1, 2, 3, 4))
        assert numbers_of(track) == [1, 2, 3, 4]
    assert engine.healthy


def test_several_workers_keep_the_order_of_a_track(device: FakeDevice) -> None:
    engine = Engine(*[device] * 3, max_waiting_per_track=100)
    with engine.open_track() as track:
        for first in range(0, 40, 4):
            track.put(numbered(*range(first, first + 4)))
        for _ in range(3):
            device.entered.acquire()
        # Three batches are on the device at once, and may finish in any order.
        device.permits.release(100)
        assert numbers_of(track) == list(range(40))
    assert engine.counts().devices["fake"].batches == {4: 10}
    engine.close()


@pytest.mark.parametrize("n_workers", [1, 2])
def test_closing_classifies_what_is_waiting(device: FakeDevice, n_workers: int) -> None:
    engine = Engine(*[device] * n_workers)
    with engine.open_track() as track, ThreadPoolExecutor(1) as closing:
        track.put(numbered(1, 2, 3, 4, 5, 6))
        device.entered.acquire()
        closed = closing.submit(engine.close)
        with pytest.raises(TimeoutError):
            closed.result(timeout=0.2)
        device.permits.release(100)
        assert numbers_of(track) == [1, 2, 3, 4, 5, 6]
        closed.result(timeout=60)


def test_a_closed_engine_accepts_no_track() -> None:
    engine = Engine(FakeDevice())
    engine.close()
    with pytest.raises(ServiceError) as caught:
        engine.open_track()
    assert caught.value.kind is ErrorKind.DEVICE_FAILED


def test_the_error_of_a_closed_engine_does_not_grow(engine: Engine) -> None:
    """All tracks get the same one, and raising it again would add to its traceback."""
    engine.close()
    depths = []
    for _ in range(3):
        with pytest.raises(ServiceError) as caught:
            engine.open_track()
        depths.append(len(caught.traceback))
    assert len(set(depths)) == 1
