"""Prometheus metrics of the feature workers, read at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from wholetrack.extraction.workers import WorkerCounts


class WorkerCollector(Collector):
    """Collects the counts of the feature workers.

    Args:
        counts: Returns how the workers are.
    """

    def __init__(self, counts: Callable[[], WorkerCounts]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """Yield each metric."""
        counts = self._counts()
        yield GaugeMetricFamily(
            "wholetrack_feature_workers", "Running processes that compute features.", value=counts.running
        )
        yield CounterMetricFamily(
            "wholetrack_feature_worker_replacements",
            "Processes that compute features that were lost and replaced.",
            value=counts.replaced,
        )
