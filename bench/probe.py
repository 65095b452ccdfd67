"""Latency of a health probe while four uploads are processed, and while the service is idle."""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np

from bench.records import benchmark_parser
from bench.song import make_song
from tests.harness.records import print_record
from tests.harness.server import Server, running_server

_UPLOADS = 4
_PAUSE_S = 0.02
_IDLE_PROBES = 200


def probe_ms(client: httpx.Client, url: str) -> float:
    """Return the latency of one probe in milliseconds."""
    began = time.perf_counter()
    client.get(f"{url}/healthz").raise_for_status()
    return (time.perf_counter() - began) * 1e3


def probe_under_load(server: Server, client: httpx.Client, song: Path, rounds: int) -> list[float]:
    """Probe every 20 ms while four clients upload a song, and return the latencies in milliseconds."""
    latencies = []
    with ThreadPoolExecutor(_UPLOADS) as clients:
        for _ in range(rounds):
            posts = [clients.submit(server.post, song) for _ in range(_UPLOADS)]
            while not all(post.done() for post in posts):
                latencies.append(probe_ms(client, server.url))
                time.sleep(_PAUSE_S)
            for post in posts:
                post.result().raise_for_status()
    return latencies


def percentiles(latencies: list[float]) -> dict[str, float]:
    """Return the distribution of the latencies."""
    median, p99 = np.percentile(latencies, [50, 99])
    return {
        "probes": len(latencies),
        "median_ms": round(float(median), 2),
        "p99_ms": round(float(p99), 2),
        "max_ms": round(max(latencies), 2),
    }


def main() -> None:
    """Run the benchmark."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="number of times that four songs are uploaded")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        song = folder / "song.mp3"
        make_song(song)
        with running_server(folder) as server, httpx.Client() as client:
            idle = [probe_ms(client, server.url) for _ in range(_IDLE_PROBES)]
            busy = probe_under_load(server, client, song, options.rounds)
        figures = {"idle": percentiles(idle), "four_uploads": percentiles(busy)}
        print_record("probe", figures, folder=options.record)


if __name__ == "__main__":
    main()
