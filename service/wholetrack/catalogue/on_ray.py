"""Predicts partitions in a Ray cluster, with Ray Data.

Each actor runs the whole pipeline, as a process on a single machine does: decoders and feature workers on its CPUs, in
the same sandbox, and the network on them or on its GPU. What passes between nodes are the numbers of partitions; each
actor reads files from the store and commits partitions to it. An actor that is lost is replaced, and the partition that
it was predicting is predicted again.

If the GPUs are on other nodes than most CPUs, further actors run the network for the others, which send them windows.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import RayError

from wholetrack.catalogue.cluster import Cluster
from wholetrack.catalogue.errors import CatalogueError, ResumableError
from wholetrack.catalogue.network_actor import start_networks
from wholetrack.catalogue.partition_actor import PartitionActor
from wholetrack.catalogue.progress import RunProgress
from wholetrack.catalogue.workplace import CatalogueOptions
from wholetrack.settings import Settings

# Above this, a single process does more for each track than its share of one CPU.
_MAX_CPUS_PER_ACTOR = 8
# What the driver keeps of each task takes memory.
_MAX_TASKS = 10_000


def run_on_ray(
    options: CatalogueOptions, settings: Settings, cluster: Cluster, remaining: list[int], progress: RunProgress
) -> None:
    """Predict and commit partitions in a cluster.

    Raises:
        CatalogueError: If there is no such cluster, or it has no room for an actor.
        ResumableError: If a store, a device, a node or the cluster has failed.
    """
    if remaining:
        # Ray prints to standard output that a node was lost.
        with redirect_stdout(sys.stderr), _connected(cluster):
            _run(options, settings, cluster, remaining, progress)


@contextmanager
def _connected(cluster: Cluster) -> Iterator[None]:
    """Connect to a cluster for the duration of the block.

    Raises:
        CatalogueError: If there is no such cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Only a cluster that is started here can have arguments of its own.
    dashboard = None if cluster.address or os.environ.get("RAY_ADDRESS") else False
    try:
        ray.init(cluster.address, include_dashboard=dashboard, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise CatalogueError(f"cannot connect to the Ray cluster: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _run(
    options: CatalogueOptions, settings: Settings, cluster: Cluster, remaining: list[int], progress: RunProgress
) -> None:
    cpus, actors = _room(cluster)
    given = settings.model_dump(exclude_unset=True, exclude={"api_keys", "api_keys_file"})
    devices = start_networks(options.model, given, cluster, cpus=cpus) if cluster.networks else None
    tasks = min(len(remaining), _MAX_TASKS)
    DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    partitions = ray.data.from_items([{"index": index} for index in remaining], override_num_blocks=tasks)
    results = partitions.map_batches(
        PartitionActor,
        fn_constructor_args=(options, given, cpus, devices),
        batch_size=1,
        compute=ActorPoolStrategy(size=min(tasks, actors)),
        num_cpus=cpus,
        num_gpus=0.0 if devices else cluster.gpus_per_actor,
    )
    try:
        for row in results.iter_rows():
            if row["error"]:
                raise ResumableError(row["error"])
            progress.add(row["predicted"], row["failed"])
            progress.commit(row["predicted"], row["failed"])
    except RayError as error:
        raise ResumableError(f"the Ray cluster has failed: {str(error).strip().splitlines()[-1]}") from error


def _room(cluster: Cluster) -> tuple[int, int]:
    """Return the CPUs of each actor, and the number of actors besides the networks.

    Raises:
        CatalogueError: If there is no room for an actor.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus = cluster.cpus_per_actor or min(
        [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1] + [_MAX_CPUS_PER_ACTOR]
    )
    if cluster.actors:
        # More than there is room for let a cluster grow.
        return cpus, cluster.actors
    gpus = 0.0 if cluster.networks else cluster.gpus_per_actor
    room = sum(
        int(min(node.get("CPU", 0) // cpus, node.get("GPU", 0) // gpus if gpus else _MAX_TASKS)) for node in nodes
    )
    if room <= cluster.networks:
        raise CatalogueError(f"no node of the Ray cluster has room for an actor with {cpus} CPUs and {gpus:g} GPUs")
    return cpus, room - cluster.networks
