"""An engine on two devices that the test controls: shared work, and one of them failing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.harness.devices import FakeClock, FakeDevice, numbered, numbers_of
from tests.harness.waiting import until
from wholetrack.api.engine_metrics import EngineCollector
from wholetrack.api.metrics import Metrics
from wholetrack.api.worker_metrics import WorkerCollector
from wholetrack.errors import ServiceError
from wholetrack.extraction.workers import WorkerCounts
from wholetrack.inference.engine import Engine
from wholetrack.inference.gpu_memory import GpuMemory
from wholetrack.inference.worker import Classifier, Failure

pytestmark = pytest.mark.timing


def classify(engine: Engine, *numbers: float) -> list[float]:
    with engine.open_track() as track:
        track.put(numbered(*numbers))
        outputs: list[float] = numbers_of(track)
    return outputs


@pytest.fixture
def devices() -> Iterator[list[FakeDevice]]:
    both = [FakeDevice("cuda:0", max_batch=2), FakeDevice("cuda:1", max_batch=2)]
    yield both
    for device in both:
        device.permits.release(1000)


def test_devices_share_a_track_and_keep_its_order(devices: list[FakeDevice]) -> None:
    engine = Engine(*devices)
    assert engine.device == "cuda:0,cuda:1"
    with engine.open_track() as track:
        track.put(numbered(*range(1, 11)))
        for device in devices:
            device.entered.acquire()
        # The second device classifies all but the batch that the first one holds.
        devices[1].permits.release(100)
        until(lambda: len(devices[1].batches) == 4)
        devices[0].permits.release(100)
        assert numbers_of(track) == list(range(1, 11))
    counts = engine.counts()
    assert {name: done.batches.total() for name, done in counts.devices.items()} == {"cuda:0": 1, "cuda:1": 4}
    engine.close()


def test_an_engine_continues_without_a_device_that_always_raises(devices: list[FakeDevice]) -> None:
    failures: list[Failure] = []
    reopened: list[Classifier] = []

    def reopen(failed: Classifier) -> Classifier:
        reopened.append(failed)
        return failed

    engine, (broken, sound) = Engine(*devices, reopen=reopen, on_unrecoverable=failures.append), devices
    broken.fails = True
    with engine.open_track() as track:
        track.put(numbered(1, 2, 3, 4))
        for device in devices:
            device.entered.acquire()
        broken.permits.release(1000)
        until(lambda: engine.classifiers == [sound])
        sound.permits.release(1000)
        with pytest.raises(ServiceError):
            track.finish()
    assert reopened == [broken]
    taken = list(broken.batches)
    assert [classify(engine, number) for number in range(10, 20)] == [[number] for number in range(10, 20)]
    assert broken.batches == taken
    states = engine.counts().devices
    assert (states["cuda:0"].healthy, states["cuda:1"].healthy) == (False, True)
    assert engine.healthy
    assert failures == []
    engine.close()


def test_a_device_that_hangs_fails_only_the_tracks_whose_windows_it_had(devices: list[FakeDevice]) -> None:
    clock, fresh = FakeClock(), FakeDevice("cuda:1", max_batch=2, permits=1000)
    engine = Engine(*devices, reopen=lambda _: fresh, clock=clock)
    with engine.open_track() as lost, engine.open_track() as waiting, ThreadPoolExecutor(1) as threads:
        lost.put(numbered(1, 2, 3, 4))
        for device in devices:
            device.entered.acquire()
        waiting.put(numbered(5))
        result = threads.submit(lost.finish)
        devices[0].permits.release(1000)
        assert numbers_of(waiting) == [5]
        clock.now += 61
        engine._supervisor._wake.set()
        with pytest.raises(ServiceError):
            result.result(timeout=60)
    until(lambda: engine.counts().devices["cuda:1"].healthy)
    assert engine.classifiers == [devices[0], fresh]
    assert classify(engine, 5, 6, 7, 8, 9) == [5, 6, 7, 8, 9]
    counts = engine.counts().devices
    assert (counts["cuda:0"].replacements, counts["cuda:1"].replacements) == (0, 1)
    engine.close()


def test_an_engine_continues_without_a_device_that_cannot_be_reopened(devices: list[FakeDevice]) -> None:
    failures: list[Failure] = []
    clock = FakeClock()

    def reopen(_: Classifier) -> Classifier:
        raise RuntimeError("still resetting")

    engine = Engine(*devices, reopen=reopen, on_unrecoverable=failures.append, clock=clock)
    with engine.open_track() as lost:
        lost.put(numbered(1, 2, 3, 4))
        for device in devices:
            device.entered.acquire()
        devices[0].permits.release(1000)
        until(lambda: engine.counts().devices["cuda:0"].batches.total() == 1)
        clock.now += 61
        engine._supervisor._wake.set()
        with pytest.raises(ServiceError):
            lost.finish()
    until(lambda: engine.classifiers == [devices[0]])
    assert classify(engine, 5, 6, 7, 8, 9) == [5, 6, 7, 8, 9]
    assert not engine.counts().devices["cuda:1"].healthy
    assert failures == []
    engine.close()


def test_a_lost_cuda_context_is_unrecoverable_even_if_another_device_works(devices: list[FakeDevice]) -> None:
    failures: list[Failure] = []
    engine = Engine(*devices, on_unrecoverable=failures.append)
    devices[1].fails, devices[1].message = True, "CUDA failure 700: an illegal memory access was encountered"
    with engine.open_track() as track:
        track.put(numbered(1, 2, 3, 4))
        # Each device has a batch before either may finish.
        for device in devices:
            device.entered.acquire()
        for device in devices:
            device.permits.release(1000)
        with pytest.raises(ServiceError):
            track.finish()
    until(lambda: failures == [Failure.CUDA_CONTEXT_LOST])
    assert not engine.available
    engine.close()


def test_metrics_are_by_device_and_report_the_memory_of_each_gpu_once(devices: list[FakeDevice]) -> None:
    other, now = FakeDevice("cuda:0", permits=1000), time.monotonic()
    devices[0].memory = GpuMemory(used=300, size=1000, measured_at=now)
    other.memory = GpuMemory(used=200, size=1000, measured_at=now - 1)
    engines = [Engine(*devices), Engine(other)]
    with engines[0].open_track() as track:
        track.put(numbered(*range(8)))
        # Each device has a batch before either may finish.
        for device in devices:
            device.entered.acquire()
        for device in devices:
            device.permits.release(1000)
        track.finish()
    classify(engines[1], 1)
    models: dict[str, Any] = {
        name: SimpleNamespace(engine=engine, head=None) for name, engine in zip("ab", engines, strict=True)
    }
    metrics = Metrics(EngineCollector(models), WorkerCollector(lambda: WorkerCounts(running=2, replaced=1)))
    families = list(text_string_to_metric_families(metrics.exposition().decode()))

    def samples(name: str) -> list[tuple[dict[str, str], float]]:
        return [(each.labels, each.value) for family in families for each in family.samples if each.name == name]

    assert samples("wholetrack_feature_workers") == [({}, 2)]
    assert samples("wholetrack_feature_worker_replacements_total") == [({}, 1)]
    assert samples("wholetrack_device_healthy") == [
        ({"model": "a", "device": "cuda:0"}, 1),
        ({"model": "a", "device": "cuda:1"}, 1),
        ({"model": "b", "device": "cuda:0"}, 1),
    ]
    assert sum(value for labels, value in samples("wholetrack_batch_windows_sum") if labels["model"] == "a") == 8
    assert samples("wholetrack_windows_waiting")[0] == ({"model": "a", "device": "cuda:0,cuda:1"}, 0)
    # Two models share the first GPU: the later reading counts.
    assert samples("wholetrack_device_memory_used_bytes") == [({"device": "cuda:0"}, 300)]
    assert samples("wholetrack_device_memory_bytes") == [({"device": "cuda:0"}, 1000)]
    for engine in engines:
        engine.close()
