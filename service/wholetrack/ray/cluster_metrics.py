"""The metrics of all replicas, so that any ingress replica can expose those of the whole application."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from ray.serve.handle import DeploymentHandle

from wholetrack.api.metrics import Metrics
from wholetrack.ray.replica import replica_name

_log = logging.getLogger(__name__)

_TIMEOUT_S = 5.0


class ClusterMetrics(Metrics):
    """The metrics of an application on Ray.

    Every series has the label ``replica``, because the counters of a replica end with it, and a sum over all replicas
    would decrease. Dashboards add them up.

    Attributes:
        deployments: Handles of all deployments, including the one of this replica, by their names.
    """

    def __init__(self) -> None:
        super().__init__()
        self.deployments: Mapping[str, DeploymentHandle[Any]] = {}

    def exposition(self) -> bytes:
        """Return the metrics of all replicas that respond, in the text format of Prometheus."""
        return generate_latest(_Families(list(self._gathered())))

    def _gathered(self) -> Iterator[Metric]:
        merged: dict[str, Metric] = {}
        for family in self._responses():
            if family.name in merged:
                merged[family.name].samples += family.samples
            else:
                merged[family.name] = family
        yield from merged.values()

    def _responses(self) -> Iterator[Metric]:
        for name, handle in self.deployments.items():
            try:
                found = handle.broadcast("metrics").results(timeout_s=_TIMEOUT_S, return_exceptions=True)
            except Exception as error:  # noqa: BLE001 - Ray raises several classes without a common base
                _log.warning("no replica of %s reports metrics: %s", name, error)
                continue
            for families in found:
                if isinstance(families, Exception):
                    _log.warning("a replica of %s does not report metrics: %s", name, families)
                else:
                    yield from families


class _Families(CollectorRegistry):
    """Metrics that have been collected already."""

    def __init__(self, families: list[Metric]) -> None:
        super().__init__()
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def process_registry(*collectors: Collector) -> CollectorRegistry:
    """Return a registry with these collectors, and the statistics of this process."""
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry


def labelled(families: Iterable[Metric]) -> list[Metric]:
    """Return metrics with the name of this replica as a label."""
    replica = replica_name()
    found = []
    for family in families:
        own = copy.copy(family)
        own.samples = [sample._replace(labels={**sample.labels, "replica": replica}) for sample in family.samples]
        found.append(own)
    return found
