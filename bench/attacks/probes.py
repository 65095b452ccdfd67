"""Health probes during an attack: how many succeed, and how long they take."""

from __future__ import annotations

import http.client
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_PAUSE_S = 0.02
_TIMEOUT_S = 10.0


@dataclass(slots=True)
class Probes:
    """Probes of one port.

    Attributes:
        latencies_s: Latency of every probe, in seconds.
        outcomes: Number of probes by status, or by the name of the exception.
    """

    latencies_s: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, Any]:
        """Return the counts and latencies for JSON."""
        return {
            "probes": len(self.latencies_s),
            "ok": self.outcomes["200"],
            "failed": {outcome: n for outcome, n in self.outcomes.items() if outcome != "200"},
            "median_ms": round(1e3 * float(np.median(self.latencies_s)), 2),
            "worst_ms": round(1e3 * max(self.latencies_s), 2),
        }


def probe(host: str, port: int, *, seconds: float) -> Probes:
    """Request ``/healthz`` on a new connection about fifty times a second, as an orchestrator does less often."""
    probes, end = Probes(), time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.perf_counter()
        with closing(http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)) as client:
            try:
                client.request("GET", "/healthz")
                response = client.getresponse()
                response.read()
                outcome = str(response.status)
            except (OSError, http.client.HTTPException) as error:
                outcome = type(error).__name__
        probes.latencies_s.append(time.perf_counter() - began)
        probes.outcomes[outcome] += 1
        time.sleep(_PAUSE_S)
    return probes


def probe_all(host: str, ports: Mapping[str, int], *, seconds: float) -> dict[str, Probes]:
    """Probe several ports at the same time, and return the probes by the name of the port."""
    with ThreadPoolExecutor(len(ports)) as threads:
        running = {name: threads.submit(probe, host, port, seconds=seconds) for name, port in ports.items()}
        return {name: probes.result() for name, probes in running.items()}
