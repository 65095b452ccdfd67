"""What Prometheus may ask: requests by outcome, seconds by stage, windows, and what is under way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from wholetrack.api.schemas import Timing
from wholetrack.inference.gpu_memory import GpuMemory
from wholetrack.pipeline import ServedModel

# One more series for each counter and histogram, which no question needs.
disable_created_metrics()  # type: ignore[no-untyped-call]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_AUDIO_SECONDS = (3.0, 10.0, 30.0, 60.0, 180.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 36000.0)


class Metrics:
    """The metrics of one application, in a registry of their own."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self, models: Mapping[str, ServedModel]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Engines(models))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self.in_progress = Gauge(
            "wholetrack_predictions_in_progress", "Predictions admitted and not yet answered.", registry=self._registry
        )
        self.predictions = Counter(
            "wholetrack_predictions", "Predictions by outcome: ok, or an error code.", ["code"], registry=self._registry
        )
        self._windows = Counter(
            "wholetrack_windows", "Windows of answered predictions.", ["model"], registry=self._registry
        )
        self._repeats = Counter(
            "wholetrack_repeats",
            "Recordings whose prediction was remembered (hit), or not.",
            ["outcome"],
            registry=self._registry,
        )
        self._audio = Histogram(
            "wholetrack_audio_seconds",
            "Length of the recordings answered.",
            buckets=_AUDIO_SECONDS,
            registry=self._registry,
        )
        self._stages = Histogram(
            "wholetrack_stage_seconds",
            "Time of answered predictions in each stage; stages overlap.",
            ["stage"],
            buckets=_SECONDS,
            registry=self._registry,
        )

    def asked(self, *, known: bool) -> None:
        """Count a recording that was received whole, and whether its answer was known."""
        self._repeats.labels("hit" if known else "miss").inc()

    def answered(self, *, model: str, n_windows: int, duration_s: float, timing: Timing) -> None:
        """Count one answered prediction."""
        self.predictions.labels("ok").inc()
        self._windows.labels(model).inc(n_windows)
        self._audio.observe(duration_s)
        for stage, milliseconds in timing.model_dump().items():
            self._stages.labels(stage).observe(milliseconds / 1e3)

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class _Engines(Collector):
    """What the engines have counted, asked when Prometheus asks."""

    def __init__(self, models: Mapping[str, ServedModel]) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        """One series of each metric for every model."""
        labels = ["model", "device"]
        batches = HistogramMetricFamily(
            "wholetrack_batch_windows", "Windows in each run of the network.", labels=labels
        )
        busy = CounterMetricFamily(
            "wholetrack_device_busy_seconds", "Time that runs of the network took.", labels=labels
        )
        failures = CounterMetricFamily("wholetrack_device_failures", "Runs of the network that failed.", labels=labels)
        replaced = CounterMetricFamily("wholetrack_device_replacements", "Device threads given up.", labels=labels)
        waiting = GaugeMetricFamily("wholetrack_windows_waiting", "Windows that wait for the device.", labels=labels)
        tracks = GaugeMetricFamily("wholetrack_tracks_open", "Tracks whose windows are classified.", labels=labels)
        healthy = GaugeMetricFamily("wholetrack_device_healthy", "1 if the device answers.", labels=labels)
        memories: dict[str, GpuMemory] = {}
        for name, served in self._models.items():
            engine, counts = served.engine, served.engine.counts()
            limits = [limit for limit in _BATCHES if limit < engine.max_batch] + [engine.max_batch]
            for device, done in counts.devices.items():
                label = [name, device]
                within = [sum(n for size, n in done.batches.items() if size <= limit) for limit in limits]
                buckets = [(str(limit), n) for limit, n in zip(limits, within, strict=True)]
                total = sum(size * n for size, n in done.batches.items())
                batches.add_metric(label, buckets=[*buckets, ("+Inf", done.batches.total())], sum_value=total)
                busy.add_metric(label, done.busy_s)
                failures.add_metric(label, done.failures)
                replaced.add_metric(label, done.replacements)
                healthy.add_metric(label, done.healthy)
                if done.memory and (device not in memories or done.memory.asked_at > memories[device].asked_at):
                    memories[device] = done.memory
            waiting.add_metric([name, engine.device], counts.waiting)
            tracks.add_metric([name, engine.device], counts.tracks)
        used = GaugeMetricFamily(
            "wholetrack_device_memory_used_bytes", "Memory of the GPU taken, by whomever.", labels=["device"]
        )
        size = GaugeMetricFamily("wholetrack_device_memory_bytes", "Memory that the GPU has.", labels=["device"])
        for device, memory in memories.items():
            used.add_metric([device], memory.used)
            size.add_metric([device], memory.size)
        yield from (batches, busy, failures, replaced, waiting, tracks, healthy, used, size)
