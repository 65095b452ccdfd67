"""Clients that send one request after another, and the latencies they measure."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

Predict = Callable[[], object]
"""Requests a prediction and waits for it; raises if it fails."""


@dataclass(frozen=True, slots=True)
class Load:
    """Latencies under a constant number of concurrent requests.

    Attributes:
        clients: Number of clients, each with one request at a time.
        latencies_s: Latency of every request, in seconds.
        seconds: Time from the first request to the last response.
    """

    clients: int
    latencies_s: tuple[float, ...]
    seconds: float

    @property
    def per_second(self) -> float:
        """Responses per second."""
        return len(self.latencies_s) / self.seconds

    def percentile_s(self, percent: float) -> float:
        """Return a percentile of the latency, in seconds."""
        return float(np.percentile(self.latencies_s, percent))

    def as_dict(self) -> dict[str, Any]:
        """Return throughput and percentiles for JSON."""
        return {
            "clients": self.clients,
            "responses": len(self.latencies_s),
            "tracks_per_second": round(self.per_second, 3),
            "median_s": round(self.percentile_s(50), 3),
            "p95_s": round(self.percentile_s(95), 3),
        }


def run_clients(predict: Predict, *, clients: int, requests: int) -> Load:
    """Send a number of requests, with as many at the same time as there are clients."""
    lock, latencies, left = threading.Lock(), list[float](), requests

    def client() -> None:
        nonlocal left
        while True:
            with lock:
                if left == 0:
                    return
                left -= 1
            began = time.perf_counter()
            predict()
            with lock:
                latencies.append(time.perf_counter() - began)

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as threads:
        for done in [threads.submit(client) for _ in range(clients)]:
            done.result()
    return Load(clients, tuple(latencies), time.perf_counter() - began)
