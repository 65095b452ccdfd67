"""An engine on two devices that the test holds in its hands: shared work, and one of them in trouble."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from tests.harness.waiting import until
from wholetrack.api.metrics import Metrics
from wholetrack.errors import ServiceError
from wholetrack.inference.engine import Engine
from wholetrack.inference.gpu_memory import GpuMemory
from wholetrack.inference.worker import Classifier


class Device:
    """Answers with each window's own number, once it may, unless it is broken."""

    max_batch, precision = 2, "float32"
    output_shape: tuple[int, ...] = (2,)

    def __init__(self, device: str) -> None:
        self.device = device
        self.memory: GpuMemory | None = None
        self.broken = self.dies = False
        self.may_run = threading.Event()
        self.may_run.set()
        self.heard: list[float] = []

    def run(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        self.heard += windows[:, 0, 0].tolist()
        self.may_run.wait()
        if self.dies:
            raise SystemExit
        if self.broken:
            raise RuntimeError("out of order")
        return np.stack([windows[:, 0, 0], 1 - windows[:, 0, 0]], axis=1)


def numbered(*numbers: float) -> NDArray[np.float32]:
    return np.array(numbers, dtype=np.float32)[:, None, None]


def answered(engine: Engine, *numbers: float) -> list[float]:
    with engine.open_track() as track:
        track.put(numbered(*numbers))
        answers: list[float] = track.finish()[:, 0].tolist()
        return answers


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Device]]:
    for seconds in ("_RETRY_S", "_CALM_RETRY_S"):
        monkeypatch.setattr(f"wholetrack.inference.engine.{seconds}", 0.01)
    both = [Device("cuda:0"), Device("cuda:1")]
    yield both
    for device in both:
        device.may_run.set()


def test_a_track_is_shared_and_keeps_its_order(devices: list[Device]) -> None:
    engine = Engine(*devices)
    assert engine.device == "cuda:0,cuda:1"
    for device in devices:
        device.may_run.clear()
    with engine.open_track() as track:
        track.put(numbered(*range(1, 11)))
        # Each has a batch before any has answered.
        until(lambda: all(len(device.heard) == 2 for device in devices))
        devices[1].may_run.set()
        until(lambda: len(devices[1].heard) == 8)
        devices[0].may_run.set()
        assert track.finish()[:, 0].tolist() == list(range(1, 11))
    counts = engine.counts()
    assert {name: sum(done.batches.values()) for name, done in counts.devices.items()} == {"cuda:0": 1, "cuda:1": 4}
    engine.close()


def test_a_device_that_answers_nothing_gets_nothing_until_it_answers_silence(devices: list[Device]) -> None:
    engine, (ill, sound) = Engine(*devices), devices
    ill.broken = True
    sound.may_run.clear()
    with engine.open_track() as track:
        track.put(numbered(1, 2, 3, 4))
        with pytest.raises(ServiceError):
            track.finish()
    until(lambda: not engine.counts().devices["cuda:0"].healthy)
    sound.may_run.set()
    heard = {number for number in ill.heard if number}
    assert engine.healthy
    for number in range(10, 40):
        assert answered(engine, number, number + 0.5) == [number, number + 0.5]
    assert {number for number in ill.heard if number} == heard
    assert not engine.counts().devices["cuda:0"].healthy
    ill.broken = False
    until(lambda: engine.counts().devices["cuda:0"].healthy)
    engine.close()


def test_a_device_that_hangs_takes_no_other_with_it(devices: list[Device]) -> None:
    """Only who had windows in it fails; while it cannot be opened again the other answers everybody."""
    fresh: Classifier = Device("cuda:1")
    opened: list[Classifier] = []
    may_open = threading.Event()
    despaired = threading.Event()

    def reopen(lost: Classifier) -> Classifier:
        opened.append(lost)
        if not may_open.is_set():
            raise RuntimeError("still resetting")
        return fresh

    engine = Engine(*devices, hang_s=0.5, reopen=reopen, despair=despaired.set)
    for device in devices:
        device.may_run.clear()
    with engine.open_track() as lost, engine.open_track() as waiting:
        lost.put(numbered(1, 2, 3, 4))
        until(lambda: all(device.heard for device in devices))
        waiting.put(numbered(5))
        devices[0].may_run.set()
        with pytest.raises(ServiceError):
            lost.finish()
        assert waiting.finish()[:, 0].tolist() == [5]
    # Opening fails again and again, which is no reason for despair as long as somebody answers.
    until(lambda: len(opened) > 5)
    assert engine.healthy
    assert answered(engine, 5, 6, 7, 8, 9) == [5, 6, 7, 8, 9]
    states = engine.counts().devices
    assert (states["cuda:0"].healthy, states["cuda:1"].healthy) == (True, False)
    may_open.set()
    until(lambda: engine.counts().devices["cuda:1"].healthy)
    assert not despaired.is_set()
    assert set(opened) == {devices[1]}
    assert engine.classifiers == [devices[0], fresh]
    counts = engine.counts().devices
    assert (counts["cuda:0"].replacements, counts["cuda:1"].replacements) == (0, 1)
    engine.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_device_that_dies_at_once_again_and_again_is_not_opened_without_pause(
    devices: list[Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wholetrack.inference.engine._CALM_RETRY_S", 60.0)
    opened: list[Classifier] = []

    def reopen(lost: Classifier) -> Classifier:
        opened.append(lost)
        dying = Device("cuda:1")
        dying.dies = True
        return dying

    engine = Engine(*devices, reopen=reopen)
    devices[1].dies = True
    for device in devices:
        device.may_run.clear()
    with engine.open_track() as track:
        track.put(numbered(1, 2, 3, 4))
        until(lambda: all(device.heard for device in devices))
        devices[1].may_run.set()
        with pytest.raises(ServiceError):
            track.finish()
    until(lambda: len(opened) == 4)
    time.sleep(0.2)
    assert len(opened) == 4
    devices[0].may_run.set()
    assert answered(engine, 5, 6, 7) == [5, 6, 7]
    engine.close()


def test_metrics_tell_devices_apart_and_state_the_memory_of_each_once(devices: list[Device]) -> None:
    other, now = Device("cuda:0"), time.monotonic()
    devices[0].memory = GpuMemory(used=300, size=1000, asked_at=now)
    other.memory = GpuMemory(used=200, size=1000, asked_at=now - 1)
    engines = [Engine(*devices), Engine(other)]
    for device in devices:
        device.may_run.clear()
    with engines[0].open_track() as track:
        track.put(numbered(*range(8)))
        until(lambda: all(device.heard for device in devices))
        for device in devices:
            device.may_run.set()
        track.finish()
    answered(engines[1], 1)
    models: dict[str, Any] = {name: SimpleNamespace(engine=engine) for name, engine in zip("ab", engines, strict=True)}
    families = list(text_string_to_metric_families(Metrics(models).exposition().decode()))

    def samples(name: str) -> list[tuple[dict[str, str], float]]:
        return [(each.labels, each.value) for family in families for each in family.samples if each.name == name]

    assert samples("wholetrack_device_healthy") == [
        ({"model": "a", "device": "cuda:0"}, 1),
        ({"model": "a", "device": "cuda:1"}, 1),
        ({"model": "b", "device": "cuda:0"}, 1),
    ]
    assert sum(value for labels, value in samples("wholetrack_batch_windows_sum") if labels["model"] == "a") == 8
    assert samples("wholetrack_windows_waiting")[0] == ({"model": "a", "device": "cuda:0,cuda:1"}, 0)
    # Two models share the first GPU: the later word counts.
    assert samples("wholetrack_device_memory_used_bytes") == [({"device": "cuda:0"}, 300)]
    assert samples("wholetrack_device_memory_bytes") == [({"device": "cuda:0"}, 1000)]
    for engine in engines:
        engine.close()
