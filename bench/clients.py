"""Clients that post one recording after the other, and what they saw."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

Ask = Callable[[], object]
"""Have one recording answered; raises if it is not."""


@dataclass(frozen=True, slots=True)
class Load:
    """What clients saw who each asked again as soon as they were answered.

    Attributes:
        clients: how many at a time.
        waits_s: of every answer, in seconds.
        seconds: from the first question to the last answer.
    """

    clients: int
    waits_s: tuple[float, ...]
    seconds: float

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return len(self.waits_s) / self.seconds

    def percentile_s(self, percent: float) -> float:
        """How long that share of the answers took at most, in seconds."""
        return float(np.percentile(self.waits_s, percent))

    def as_dict(self) -> dict[str, Any]:
        """Throughput and distribution, for JSON."""
        return {
            "clients": self.clients,
            "answers": len(self.waits_s),
            "tracks_per_second": round(self.per_second, 3),
            "median_s": round(self.percentile_s(50), 3),
            "p95_s": round(self.percentile_s(95), 3),
        }


def load(ask: Ask, *, clients: int, answers: int) -> Load:
    """Ask ``answers`` times, never more than ``clients`` at a time."""
    lock, waits, left = threading.Lock(), list[float](), answers

    def client() -> None:
        nonlocal left
        while True:
            with lock:
                if left == 0:
                    return
                left -= 1
            began = time.perf_counter()
            ask()
            with lock:
                waits.append(time.perf_counter() - began)

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as threads:
        for done in [threads.submit(client) for _ in range(clients)]:
            done.result()
    return Load(clients, tuple(waits), time.perf_counter() - began)
