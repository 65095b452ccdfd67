"""BentoML: a service that decodes, which calls a service that classifies with adaptive batching (docs.bentoml.com)."""

import asyncio
from pathlib import Path

import bentoml
import numpy as np

from bench.peers.work import CORES, WORKERS, Work

_MAX_WINDOWS, _LATENCY_MS, _TIMEOUT_S = 1024, 60_000, 600


@bentoml.service(workers=1, traffic={"timeout": _TIMEOUT_S})
class Classifier:
    """Classifies windows of several requests in one call; BentoML concatenates the arrays along their first axis."""

    def __init__(self) -> None:
        self.work = Work()

    @bentoml.api(batchable=True, max_batch_size=_MAX_WINDOWS, max_latency_ms=_LATENCY_MS)
    def classify(self, windows: np.ndarray) -> np.ndarray:
        return self.work.classify(windows)


@bentoml.service(workers=CORES, traffic={"timeout": _TIMEOUT_S})
class Batching:
    """Decodes one recording at a time in a thread, so that the event loop is not blocked."""

    classifier = bentoml.depends(Classifier)

    def __init__(self) -> None:
        self.work = Work()
        self.decoding = asyncio.Semaphore(1)

    @bentoml.api
    async def predict(self, request: Path) -> dict:
        async with self.decoding:
            windows = await asyncio.to_thread(self.work.windows, request)
        return self.work.shares(await self.classifier.to_async.classify(windows))


@bentoml.service(workers=CORES, traffic={"timeout": _TIMEOUT_S})
class SingleWorker:
    """Decodes and classifies in the same worker, one recording at a time."""

    def __init__(self) -> None:
        self.work = Work()

    @bentoml.api
    def predict(self, request: Path) -> dict:
        return self.work.shares(self.work.classify(self.work.windows(request)))


Genres = SingleWorker if WORKERS else Batching
