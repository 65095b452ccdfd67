"""Prometheus metrics: predictions by outcome, seconds by stage, windows, requests in progress, and the devices."""

from __future__ import annotations

from typing import Self

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
from prometheus_client.registry import Collector

from wholetrack.api.engine_metrics import EngineCollector
from wholetrack.api.result_metrics import ResultMetrics
from wholetrack.api.schemas import Timing
from wholetrack.api.worker_metrics import WorkerCollector
from wholetrack.track_pipeline import TrackPipeline

# Otherwise every counter and histogram gets an additional series with the time of its creation, which nobody needs.
disable_created_metrics()  # type: ignore[no-untyped-call]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_AUDIO_SECONDS = (3.0, 10.0, 30.0, 60.0, 180.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 36000.0)


class Metrics:
    """The metrics of one application, in a registry of its own.

    Args:
        collectors: What else is exposed.

    Attributes:
        registry: All of them.
        in_progress: Predictions admitted and not yet answered.
        predictions: Counter of predictions by outcome, ``ok`` or an error code.
        results: Counts what was predicted.
    """

    media_type = CONTENT_TYPE_LATEST

    def __init__(self, *collectors: Collector) -> None:
        self.registry = CollectorRegistry()
        for collector in collectors:
            self.registry.register(collector)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.in_progress = Gauge(
            "wholetrack_predictions_in_progress",
            "Predictions admitted and not yet finished.",
            registry=self.registry,
        )
        self.predictions = Counter(
            "wholetrack_predictions",
            "Predictions by outcome: ok, or an error code.",
            ["code"],
            registry=self.registry,
        )
        self.results = ResultMetrics(self.registry)
        self._windows = Counter(
            "wholetrack_windows", "Windows of successful predictions.", ["model"], registry=self.registry
        )
        self._cache_lookups = Counter(
            "wholetrack_cache_lookups",
            "Lookups in the prediction cache by outcome: hit or miss.",
            ["outcome"],
            registry=self.registry,
        )
        self._audio = Histogram(
            "wholetrack_audio_seconds",
            "Duration of the recordings of successful predictions.",
            buckets=_AUDIO_SECONDS,
            registry=self.registry,
        )
        self._stages = Histogram(
            "wholetrack_stage_seconds",
            "Time spent in each stage by successful predictions. Stages overlap.",
            ["stage"],
            buckets=_SECONDS,
            registry=self.registry,
        )

    @classmethod
    def of_process(cls, pipeline: TrackPipeline) -> Self:
        """Return metrics that include the devices and the feature workers of this process."""
        return cls(EngineCollector(pipeline.models), WorkerCollector(pipeline.worker_counts))

    def count_cache_lookup(self, *, hit: bool) -> None:
        """Count one lookup in the prediction cache."""
        self._cache_lookups.labels("hit" if hit else "miss").inc()

    def count_prediction(self, *, model: str, n_windows: int, duration_s: float, timing: Timing) -> None:
        """Count one successful prediction."""
        self.predictions.labels("ok").inc()
        self._windows.labels(model).inc(n_windows)
        self._audio.observe(duration_s)
        for stage, milliseconds in timing.model_dump().items():
            self._stages.labels(stage).observe(milliseconds / 1e3)

    def exposition(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self.registry)
