"""The deployment that runs the networks of all models, on the CPU or on a GPU."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor

from prometheus_client.metrics_core import Metric

from wholetrack.api.engine_metrics import EngineCollector
from wholetrack.contracts import Rows, Windows
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.inference.outputs import Keep
from wholetrack.ray.cluster_metrics import labelled, process_registry
from wholetrack.ray.messages import NetworkInfo, NetworkKey, NotClassified
from wholetrack.ray.replica import start_replica
from wholetrack.served_model import ServedModel
from wholetrack.startup import configured_bundles, default_key, limit_malloc_arenas, served_models

_log = logging.getLogger(__name__)

MAX_ONGOING = 64
"""Number of calls that a replica accepts at the same time, so that its batches are full."""


class Network:
    """Runs windows in the batches of an engine, whose size is best for the device.

    The windows of one call are to the engine what those of a track are: calls share batches in equal parts, and a
    window that makes a run fail makes only its own call fail.
    """

    def __init__(self) -> None:
        settings = start_replica()
        limit_malloc_arenas()
        bundles = configured_bundles(settings)
        default = default_key(bundles, settings)
        models = served_models(bundles, default, settings)
        network = models[bundles[default].base or default].card
        self._default = (network.name, network.version)
        self._models: dict[NetworkKey, ServedModel] = {
            (served.card.name, served.card.version): served for served in models.values() if served.head is None
        }
        self._registry = process_registry(EngineCollector(models))
        self._threads = ThreadPoolExecutor(MAX_ONGOING, thread_name_prefix="call")

    async def run(self, key: NetworkKey, windows: Windows) -> Rows | NotClassified:
        """Return the outputs of a network for normalised windows."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._run, key, windows)

    def _run(self, key: NetworkKey, windows: Windows) -> Rows | NotClassified:
        served = self._models.get(key)
        if served is None:
            # While replicas are being replaced, some of them may serve other versions.
            return NotClassified(f"this replica does not have version {key[1]} of {key[0]}", again=True)
        try:
            with served.engine.open_track(keep=[Keep.ROWS] * len(served.card.outputs.kinds)) as queue:
                queue.put(windows)
                outputs = queue.finish()
        except ServiceError as error:
            return NotClassified(error.detail, again=self._may_recover(served, error))
        assert outputs is not None
        return Rows(tuple(array for array in outputs.rows if array is not None))

    def _may_recover(self, served: ServedModel, error: ServiceError) -> bool:
        """Return whether the device is at fault, and it or another replica may still run the windows."""
        if error.kind is ErrorKind.MODEL_UNAVAILABLE:
            # Without its default model a replica ends, and is restarted.
            return (served.card.name, served.card.version) == self._default
        return not served.engine.healthy

    async def describe(self) -> dict[NetworkKey, NetworkInfo]:
        """Return the networks, and whether they work."""
        return {key: _described(served) for key, served in self._models.items()}

    async def metrics(self) -> list[Metric]:
        """Return the metrics of the devices."""
        # Each call counts as a track here. The replicas that decode know the tracks.
        return labelled(family for family in self._registry.collect() if family.name != "wholetrack_tracks_open")

    def __del__(self) -> None:
        self._threads.shutdown()
        for served in self._models.values():
            served.engine.close()


def _described(served: ServedModel) -> NetworkInfo:
    engine = served.engine
    return NetworkInfo(
        device=engine.device,
        precision=engine.precision,
        min_share=engine.min_share,
        healthy=engine.healthy,
        unavailable_reason=engine.unavailable_reason,
        cpu_fallback=served.cpu_fallback,
    )
