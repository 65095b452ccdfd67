"""Prometheus metrics of the engines and their devices, read from the engines' own counters at each scrape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from wholetrack.inference.counts import EngineCounts
from wholetrack.inference.engine import Engine
from wholetrack.inference.gpu_memory import GpuMemory
from wholetrack.inference.unavailable import UnavailableEngine
from wholetrack.served_model import ServedModel

_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_LABELS = ("model", "device")

# Name, engine and counters of each model.
_Snapshots = list[tuple[str, Engine | UnavailableEngine, EngineCounts]]


class EngineCollector(Collector):
    """Collects the counters of the engines of all served models that have a network of their own."""

    def __init__(self, models: Mapping[str, ServedModel]) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        """Yield each metric, with one series per model and device."""
        # The engine of a head is that of another model, and counts the windows of both.
        networks = {name: served.engine for name, served in self._models.items() if served.head is None}
        snapshots = [(name, engine, engine.counts()) for name, engine in networks.items()]
        yield _batch_sizes(snapshots)
        yield from _device_counters(snapshots)
        yield from _queue_gauges(snapshots)
        yield from _gpu_memory(snapshots)


def _batch_sizes(snapshots: _Snapshots) -> Metric:
    batches = HistogramMetricFamily("wholetrack_batch_windows", "Windows per run of the network.", labels=_LABELS)
    for name, engine, counts in snapshots:
        limits = [limit for limit in _BATCH_SIZES if limit < engine.max_batch] + [engine.max_batch]
        for device, device_counts in counts.devices.items():
            runs = device_counts.batches
            buckets = [(str(limit), sum(n for size, n in runs.items() if size <= limit)) for limit in limits]
            n_windows = sum(size * n for size, n in runs.items())
            batches.add_metric([name, device], buckets=[*buckets, ("+Inf", runs.total())], sum_value=n_windows)
    return batches


def _device_counters(snapshots: _Snapshots) -> Iterator[Metric]:
    busy = CounterMetricFamily(
        "wholetrack_device_busy_seconds", "Time the device spent running the network.", labels=_LABELS
    )
    failures = CounterMetricFamily("wholetrack_device_failures", "Runs of the network that failed.", labels=_LABELS)
    replaced = CounterMetricFamily(
        "wholetrack_device_replacements", "Device threads that were abandoned and replaced.", labels=_LABELS
    )
    healthy = GaugeMetricFamily(
        "wholetrack_device_healthy", "1 if the device has a working thread, else 0.", labels=_LABELS
    )
    for name, _, counts in snapshots:
        for device, device_counts in counts.devices.items():
            labels = [name, device]
            busy.add_metric(labels, device_counts.busy_s)
            failures.add_metric(labels, device_counts.failures)
            replaced.add_metric(labels, device_counts.replacements)
            healthy.add_metric(labels, device_counts.healthy)
    yield from (busy, failures, replaced, healthy)


def _queue_gauges(snapshots: _Snapshots) -> Iterator[Metric]:
    waiting = GaugeMetricFamily("wholetrack_windows_waiting", "Windows waiting for a device.", labels=_LABELS)
    tracks = GaugeMetricFamily("wholetrack_tracks_open", "Tracks whose windows are being classified.", labels=_LABELS)
    for name, engine, counts in snapshots:
        waiting.add_metric([name, engine.device], counts.waiting)
        tracks.add_metric([name, engine.device], counts.tracks)
    yield from (waiting, tracks)


def _gpu_memory(snapshots: _Snapshots) -> Iterator[Metric]:
    used = GaugeMetricFamily(
        "wholetrack_device_memory_used_bytes", "Memory in use on the GPU, by all processes.", labels=["device"]
    )
    size = GaugeMetricFamily("wholetrack_device_memory_bytes", "Total memory of the GPU.", labels=["device"])
    for device, memory in _latest_memory(snapshots).items():
        used.add_metric([device], memory.used)
        size.add_metric([device], memory.size)
    yield from (used, size)


def _latest_memory(snapshots: _Snapshots) -> dict[str, GpuMemory]:
    """Return the most recent reading of each GPU, since several models may share one."""
    latest: dict[str, GpuMemory] = {}
    for _, _, counts in snapshots:
        for device, device_counts in counts.devices.items():
            memory = device_counts.memory
            if memory and (device not in latest or memory.measured_at > latest[device].measured_at):
                latest[device] = memory
    return latest
