"""Predicts partitions in a Ray cluster, with Ray Data.

Each actor runs the whole pipeline, as a process on a single machine does: decoders and feature workers on its CPUs, in
the same sandbox, and the network on them or on its GPU. What passes between nodes are the numbers of partitions; each
actor reads files from the store and commits partitions to it. An actor that is lost is replaced, and the partition that
it was predicting is predicted again.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import RayError

from wholetrack.catalogue.cluster import Cluster
from wholetrack.catalogue.errors import CatalogueError, ResumableError
from wholetrack.catalogue.local import predict_partitions
from wholetrack.catalogue.manifest import Manifest
from wholetrack.catalogue.progress import RunProgress
from wholetrack.catalogue.workplace import CatalogueOptions, Workplace, open_workplace
from wholetrack.logs import configure_logs
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
        CatalogueError: If there is no such cluster, it has no room for an actor, or its nodes differ from this machine.
        ResumableError: If a store, a device or the cluster has failed.
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
    DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    tasks = min(len(remaining), _MAX_TASKS)
    given = settings.model_dump(exclude_unset=True, exclude={"api_keys", "api_keys_file"})
    partitions = ray.data.from_items([{"index": index} for index in remaining], override_num_blocks=tasks)
    results = partitions.map_batches(
        PartitionActor,
        fn_constructor_args=(options, given | {"tracks_at_once": cpus, "cpu_threads": cpus}),
        batch_size=1,
        compute=ActorPoolStrategy(size=min(actors, tasks)),
        num_cpus=cpus,
        num_gpus=cluster.gpus_per_actor,
    )
    try:
        for row in results.iter_rows():
            if row["mistake"]:
                raise CatalogueError(row["mistake"])
            if row["failure"]:
                raise ResumableError(row["failure"])
            progress.add(row["predicted"], row["failed"])
            progress.commit(row["predicted"], row["failed"])
    except RayError as error:
        raise ResumableError(f"the Ray cluster has failed: {str(error).strip().splitlines()[-1]}") from error


def _room(cluster: Cluster) -> tuple[int, int]:
    """Return the CPUs of each actor, and the number of actors.

    Raises:
        CatalogueError: If there is no room for an actor.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    cpus = [int(node.get("CPU", 0)) for node in nodes if node.get("CPU", 0) >= 1]
    per_actor = cluster.cpus_per_actor or min([*cpus, _MAX_CPUS_PER_ACTOR])
    if cluster.actors:
        # More than there is room for let a cluster grow.
        return per_actor, cluster.actors
    room = [int(node.get("CPU", 0) // per_actor) for node in nodes]
    if cluster.gpus_per_actor:
        room = [min(n, int(node.get("GPU", 0) // cluster.gpus_per_actor)) for n, node in zip(room, nodes, strict=True)]
    if not sum(room):
        wanted = f"{per_actor} CPUs and {cluster.gpus_per_actor:g} GPUs"
        raise CatalogueError(f"no node of the Ray cluster has room for an actor with {wanted}")
    return per_actor, sum(room)


class PartitionActor:
    """Predicts and commits one partition after the other.

    Args:
        options: What to predict.
        settings: The settings that differ from those of the node.
    """

    def __init__(self, options: CatalogueOptions, settings: dict[str, Any]) -> None:
        self._options = options
        self._settings = settings
        self._opened = ExitStack()
        self._workplace: tuple[Workplace, Manifest] | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Predict and commit a partition.

        Args:
            batch: Its ``index``.

        Returns:
            The number of files that were ``predicted`` and ``failed``; or a ``failure`` that ends the run, or a
            ``mistake`` because of which it should not have begun.
        """
        (index,) = batch["index"].tolist()
        try:
            predicted, failed = self._predict(index)
        except ResumableError as error:
            return _result(failure=str(error))
        except (CatalogueError, OSError) as error:
            return _result(mistake=f"on {socket.gethostname()}: {error}")
        return _result(predicted=predicted, failed=failed)

    def _predict(self, index: int) -> tuple[int, int]:
        workplace, manifest = self._workplace or self._open()
        (result,) = predict_partitions(
            [manifest.partition(index)], workplace.predictor, tracks_at_once=workplace.settings.tracks_at_once
        )
        workplace.commit(result)
        return len(result.predicted), len(result.failed)

    def _open(self) -> tuple[Workplace, Manifest]:
        configure_logs(level="warning", log_format="text")
        settings = Settings.model_validate(self._settings)
        workplace = self._opened.enter_context(open_workplace(self._options, settings))
        manifest = workplace.target.manifest(workplace.spec())
        if manifest is None:
            raise ResumableError("the manifest is no longer there")
        self._workplace = workplace, manifest
        return self._workplace


def _result(*, predicted: int = 0, failed: int = 0, failure: str = "", mistake: str = "") -> dict[str, list[Any]]:
    return {"predicted": [predicted], "failed": [failed], "failure": [failure], "mistake": [mistake]}
