"""Ray Serve: replicas that decode, and behind them replicas that classify dynamic batches of tracks (docs.ray.io)."""

from __future__ import annotations

import asyncio
import sys
import time

import numpy as np
import ray
from numpy.typing import NDArray
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request

from bench.peers.work import CORES, Work

Windows = NDArray[np.float32]
_MOST_AT_ONCE = 64


@serve.deployment(num_replicas=CORES, max_ongoing_requests=_MOST_AT_ONCE, ray_actor_options={"num_cpus": 0.5})
class Classifier:
    """Tracks that wait are classified together."""

    def __init__(self) -> None:
        self.work = Work()

    @serve.batch(max_batch_size=4, batch_wait_timeout_s=0.01)
    async def __call__(self, tracks: list[Windows]) -> list[Windows]:
        return await asyncio.to_thread(self.work.classify_together, tracks)


@serve.deployment(num_replicas=CORES, max_ongoing_requests=_MOST_AT_ONCE, ray_actor_options={"num_cpus": 0.5})
class Genres:
    """Decodes in threads, so that its event loop stays free."""

    def __init__(self, classifier: DeploymentHandle) -> None:
        self.work = Work()
        self.classifier = classifier

    async def __call__(self, request: Request) -> dict[str, dict[str, float]]:
        form = await request.form()
        content = await form["request"].read()  # type: ignore[union-attr]
        windows = await asyncio.to_thread(self.work.windows, content)
        return self.work.answer(await self.classifier.remote(windows))


if __name__ == "__main__":
    ray.init(num_cpus=CORES, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Genres.bind(Classifier.bind()), route_prefix="/predict")
    while True:
        time.sleep(60)
