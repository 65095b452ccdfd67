"""Ray Serve: replicas that decode, which call a replica that classifies dynamic batches of tracks (docs.ray.io)."""

import asyncio
import sys
import time

import numpy as np
import ray
from numpy.typing import NDArray
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request

from bench.peers.work import CORES, MAX_BATCH_TRACKS, WORKERS, Work

Windows = NDArray[np.float32]
_MAX_ONGOING = 64


@serve.deployment(max_ongoing_requests=_MAX_ONGOING, ray_actor_options={"num_cpus": 0.5})
class Classifier:
    """Classifies the tracks that are waiting together."""

    def __init__(self) -> None:
        self.work = Work()

    @serve.batch(max_batch_size=MAX_BATCH_TRACKS, batch_wait_timeout_s=0.01)
    async def __call__(self, tracks: list[Windows]) -> list[Windows]:
        return await asyncio.to_thread(self.work.classify_together, tracks)


@serve.deployment(num_replicas=CORES, max_ongoing_requests=_MAX_ONGOING, ray_actor_options={"num_cpus": 0.5})
class Batching:
    """Decodes one recording at a time in a thread, so that the event loop is not blocked."""

    def __init__(self, classifier: DeploymentHandle) -> None:
        self.work = Work()
        self.decoding = asyncio.Semaphore(1)
        self.classifier = classifier

    async def __call__(self, request: Request) -> dict[str, dict[str, float]]:
        form = await request.form()
        content = await form["request"].read()
        async with self.decoding:
            windows = await asyncio.to_thread(self.work.windows, content)
        return self.work.shares(await self.classifier.remote(windows))


@serve.deployment(num_replicas=CORES, max_ongoing_requests=1, ray_actor_options={"num_cpus": 1})
class SingleReplica:
    """Decodes and classifies in the same replica, one recording at a time."""

    def __init__(self) -> None:
        self.work = Work()

    async def __call__(self, request: Request) -> dict[str, dict[str, float]]:
        form = await request.form()
        content = await form["request"].read()
        return await asyncio.to_thread(lambda: self.work.shares(self.work.classify(self.work.windows(content))))


if __name__ == "__main__":
    ray.init(num_cpus=CORES, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(SingleReplica.bind() if WORKERS else Batching.bind(Classifier.bind()), route_prefix="/predict")
    while True:
        time.sleep(60)
