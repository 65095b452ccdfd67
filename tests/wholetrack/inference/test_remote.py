"""Networks that run elsewhere: retries, and an engine whose network cannot be reached for a while."""

from __future__ import annotations

import pickle
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from tests.harness.devices import FakeClock, FakeDevice, numbered, numbers_of
from tests.harness.waiting import until
from wholetrack.contracts import Rows, Windows
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.inference.engine import Engine
from wholetrack.inference.remote import RemoteSession
from wholetrack.inference.worker import UnreachableError

_TIMEOUT_S = 10.0
# The shapes of the inputs and outputs of a FakeDevice.
_CARD: Any = SimpleNamespace(
    inputs=[SimpleNamespace(shape=(None, *shape)) for shape in FakeDevice.window_shapes],
    output_shapes=FakeDevice.output_shapes,
)


class FakeTransport:
    """Runs windows on a fake device, unless the network is unreachable.

    Attributes:
        errors: Raised by the next calls, one each.
        reachable: Whether calls get through.
    """

    def __init__(self) -> None:
        self.device = FakeDevice(permits=1000)
        self.errors: list[Exception] = []
        self.reachable = threading.Event()
        self.reachable.set()
        self.timeouts: list[float] = []

    def __call__(self, windows: Windows, *, timeout_s: float) -> Rows:
        self.timeouts.append(timeout_s)
        if self.errors:
            raise self.errors.pop(0)
        if not self.reachable.is_set():
            raise UnreachableError("nobody responds")
        return self.device.run(windows)


def session(transport: FakeTransport, clock: FakeClock) -> RemoteSession:
    def sleep(seconds: float) -> None:
        clock.now += seconds

    return RemoteSession(
        _CARD, transport, device="cpu", precision="float32", timeout_s=_TIMEOUT_S, clock=clock, sleep=sleep
    )


def classify(engine: Engine, *numbers: float) -> list[float]:
    with engine.open_track() as track:
        track.put(numbered(*numbers))
        found: list[float] = numbers_of(track)
    return found


def test_a_run_is_repeated_until_the_network_responds() -> None:
    transport, clock = FakeTransport(), FakeClock()
    transport.errors = [UnreachableError("lost"), UnreachableError("lost")]
    outputs = session(transport, clock).run(numbered(3))
    assert outputs.arrays[1].tolist() == [[30]]
    assert len(transport.timeouts) == 3
    assert clock.now > 0


def test_all_attempts_share_one_time_limit_and_pauses_grow() -> None:
    transport, clock = FakeTransport(), FakeClock()
    transport.reachable.clear()
    with pytest.raises(UnreachableError):
        session(transport, clock).run(numbered(3))
    assert clock.now <= _TIMEOUT_S
    assert transport.timeouts == sorted(transport.timeouts, reverse=True)
    pauses = [a - b for a, b in zip(transport.timeouts, transport.timeouts[1:], strict=False)]
    assert pauses[-1] > 4 * pauses[0]
    assert len(pauses) < 30


def test_other_errors_are_not_repeated() -> None:
    transport = FakeTransport()
    transport.errors = [RuntimeError("poison")]
    with pytest.raises(RuntimeError, match="poison"):
        session(transport, FakeClock()).run(numbered(3))
    assert len(transport.timeouts) == 1


@pytest.mark.timing
def test_an_unreachable_network_fails_its_tracks_and_is_used_again_when_it_responds() -> None:
    transport, clock = FakeTransport(), FakeClock()
    transport.reachable.clear()
    unrecoverable: list[object] = []
    engine = Engine(session(transport, clock), reopen=lambda old: old, on_unrecoverable=unrecoverable.append)
    for _ in range(3):
        # The worker was restarted each time, and its probe of the network failed.
        with pytest.raises(ServiceError) as caught:
            classify(engine, 1, 2)
        assert caught.value.kind is ErrorKind.DEVICE_FAILED
        assert caught.value.retry_after_s
    assert not engine.healthy
    assert engine.available
    transport.reachable.set()
    until(lambda: engine.healthy)
    assert classify(engine, 5) == [5]
    assert not unrecoverable
    engine.close()


def test_windows_of_an_unreachable_network_are_not_divided() -> None:
    transport, clock = FakeTransport(), FakeClock()
    transport.reachable.clear()
    sizes: list[int] = []
    remote = session(transport, clock)
    run = remote.run

    def counting(windows: Windows) -> Rows:
        sizes.append(len(windows))
        return run(windows)

    remote.run = counting  # type: ignore[method-assign]
    engine = Engine(remote, reopen=lambda old: old)
    with engine.open_track() as track:
        track.put(numbered(1, 2, 3, 4))
        with pytest.raises(ServiceError):
            track.finish()
    # The first is the batch; silent windows follow.
    assert sizes[0] == 4
    assert set(sizes[1:]) <= {1}
    transport.reachable.set()
    engine.close()


def test_a_poisoned_window_fails_its_track_alone() -> None:
    transport, clock = FakeTransport(), FakeClock()
    transport.device.poison = 13.0
    engine = Engine(session(transport, clock), reopen=lambda old: old)
    with engine.open_track() as good, engine.open_track() as bad:
        good.put(numbered(1, 2))
        bad.put(numbered(13, 14))
        assert numbers_of(good) == [1, 2]
        with pytest.raises(ServiceError) as caught:
            bad.finish()
    assert caught.value.kind is ErrorKind.DEVICE_FAILED
    engine.close()


def test_errors_reach_other_processes() -> None:
    error = ServiceError(ErrorKind.OVERLOADED, "Try again.", retry_after_s=4)
    found = pickle.loads(pickle.dumps(error))
    assert (found.kind, found.detail, found.retry_after_s) == (error.kind, error.detail, 4)
    assert str(found) == str(error)
