"""One cluster for all tests: two nodes, of which the first runs the ingress."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness.ray_cluster import RayCluster, running_cluster
from tests.harness.server import Server, running_server

# On each node, so that recordings and windows are sent to the other one.
_ONE_PER_NODE = {"autoscaling_config": {"min_replicas": 2, "max_replicas": 2}, "max_replicas_per_node": 1}
OPTIONS = {"analysis": _ONE_PER_NODE, "network": _ONE_PER_NODE}
MAX_REQUESTS = 12


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    folder = tmp_path_factory.mktemp("cluster")
    with running_cluster(folder, OPTIONS, nodes=[2, 2], max_requests=MAX_REQUESTS) as started:
        yield started


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service without Ray, for comparison."""
    with running_server(tmp_path_factory.mktemp("server")) as started:
        yield started
