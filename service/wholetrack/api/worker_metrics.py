"""Prometheus metrics of the feature workers, read at each scrape."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from wholetrack.extraction.workers import FeatureWorkers


class WorkerCollector(Collector):
    """Collects the counts of the feature workers."""

    def __init__(self, workers: FeatureWorkers) -> None:
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        """Yield each metric."""
        counts = self._workers.counts()
        yield GaugeMetricFamily(
            "wholetrack_feature_workers", "Running processes that compute features.", value=counts.running
        )
        yield CounterMetricFamily(
            "wholetrack_feature_worker_replacements",
            "Processes that compute features that were lost and replaced.",
            value=counts.replaced,
        )
