"""The deployment that decodes recordings, and predicts them from their features with networks that run elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from asgi_correlation_id import correlation_id
from prometheus_client.metrics_core import Metric
from ray.serve.handle import DeploymentHandle

from wholetrack.api.engine_metrics import EngineCollector
from wholetrack.api.threads import client_gone, wait_despite_cancellation
from wholetrack.api.worker_metrics import WorkerCollector
from wholetrack.cancellation import Cancellation
from wholetrack.contracts import TrackPrediction
from wholetrack.errors import ServiceError
from wholetrack.ray.cluster_metrics import labelled, process_registry
from wholetrack.ray.messages import AnalysisInfo, Elsewhere, Event, Recording, TrackOptions
from wholetrack.ray.relay import Relay
from wholetrack.ray.remote_networks import RemoteNetworks
from wholetrack.ray.replica import node_id, outside_event_loop, start_replica
from wholetrack.spool_folder import spool_folder
from wholetrack.startup import build_pipeline

_log = logging.getLogger(__name__)

MAX_ONGOING = 16
"""Number of recordings that a replica accepts at the same time; it decodes fewer."""

# Without this pause, each block and each batch would become a message.
_MIN_INTERVAL_S = 0.05

# The replicas of the networks report what their devices do.
_OF_DEVICES = ("wholetrack_device", "wholetrack_batch")

Outcome = TrackPrediction | ServiceError | Elsewhere


class Analysis:
    """A whole pipeline, except that its networks run elsewhere.

    Args:
        network: Handle of the deployment of the networks.
    """

    def __init__(self, network: DeploymentHandle[Any]) -> None:
        settings = start_replica()
        self._tracks_at_once = settings.tracks_at_once
        self._pipeline = outside_event_loop(
            partial(build_pipeline, settings, devices=partial(RemoteNetworks, network)),
        )
        self._resources = contextlib.ExitStack()
        self._folder = self._resources.enter_context(spool_folder(settings.temp_dir))
        self._node_id = node_id()
        self._threads = ThreadPoolExecutor(MAX_ONGOING, thread_name_prefix="track")
        engines, workers = EngineCollector(self._pipeline.models), WorkerCollector(self._pipeline.worker_counts)
        self._registry = process_registry(engines, workers)

    async def predict(self, recording: Recording, options: TrackOptions) -> AsyncIterator[list[Event] | Outcome]:
        """Yield events, if they were requested, and finally the outcome.

        If the caller cancels the call, decoding ends.
        """
        async with self._local_file(recording) as path:
            if path is None:
                yield Elsewhere()
                return
            relay = None if options.peaks_per_s is None else Relay(options.peaks_per_s, options.taxonomy)
            cancellation = Cancellation()
            loop = asyncio.get_running_loop()
            running = loop.run_in_executor(self._threads, self._predict, path, options, cancellation, relay)
            try:
                if relay:
                    async for events in _batches(relay, running):
                        yield events
                yield await asyncio.shield(running)
            finally:
                cancellation.cancel(client_gone())
                # The thread is still reading the file.
                await wait_despite_cancellation(running)

    def _predict(
        self, path: Path, options: TrackOptions, cancellation: Cancellation, relay: Relay | None
    ) -> TrackPrediction | ServiceError:
        correlation_id.set(options.request_id)
        try:
            return self._pipeline.predict(
                path,
                model=options.model,
                hop_s=options.hop_s,
                taxonomy=options.taxonomy,
                tags=options.tags,
                embedding=options.embedding,
                max_duration_s=options.max_duration_s,
                weight=options.weight,
                cancellation=cancellation,
                observer=relay,
            )
        except ServiceError as error:
            return error.with_traceback(None)

    @asynccontextmanager
    async def _local_file(self, recording: Recording) -> AsyncIterator[Path | None]:
        """Yield a file with the recording; None if this replica cannot read it."""
        if recording.node_id == self._node_id:
            yield Path(recording.path)
        elif recording.chunks is None:
            yield None
        else:
            with tempfile.NamedTemporaryFile(dir=self._folder) as file:
                for chunk in recording.chunks:
                    await asyncio.to_thread(file.write, await chunk)
                file.flush()
                yield Path(file.name)

    async def describe(self) -> AnalysisInfo:
        """Return what this replica can do."""
        return AnalysisInfo(self._tracks_at_once, self._pipeline.sandbox_layers)

    async def metrics(self) -> list[Metric]:
        """Return the metrics of this replica."""
        return labelled(family for family in self._registry.collect() if not family.name.startswith(_OF_DEVICES))

    def __del__(self) -> None:
        self._threads.shutdown()
        self._pipeline.close()
        self._resources.close()


async def _batches(relay: Relay, running: asyncio.Future[Any]) -> AsyncIterator[list[Event]]:
    """Yield the events of a track until it is finished."""
    running.add_done_callback(lambda _: relay.changed.set())
    while not running.done():
        await relay.changed.wait()
        if events := relay.take():
            yield events
        await asyncio.wait([running], timeout=_MIN_INTERVAL_S)
    if events := relay.take():
        yield events
