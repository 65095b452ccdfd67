"""What Prometheus may ask: requests by outcome, seconds by stage, windows, and what is under way."""

from __future__ import annotations

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

from service.api.schemas import Timing

# One more series for each counter and histogram, which no question needs.
disable_created_metrics()  # type: ignore[no-untyped-call]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_AUDIO_SECONDS = (3.0, 10.0, 30.0, 60.0, 180.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 36000.0)


class Metrics:
    """The metrics of one application, in a registry of their own."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
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
