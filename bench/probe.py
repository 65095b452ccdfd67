"""How long a health probe waits while four uploads are being processed, and while nothing is."""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np

from tests.harness.report import arguments, make_song, print_report
from tests.harness.server import Server, running_server


def probe(client: httpx.Client, url: str) -> float:
    """Milliseconds of one probe."""
    began = time.perf_counter()
    client.get(f"{url}/healthz").raise_for_status()
    return (time.perf_counter() - began) * 1e3


def percentiles(waits: list[float]) -> dict[str, float]:
    """The distribution of the probes' waits."""
    median, p99 = np.percentile(waits, [50, 99])
    return {
        "probes": len(waits),
        "median_ms": round(float(median), 2),
        "p99_ms": round(float(p99), 2),
        "max_ms": round(max(waits), 2),
    }


def under_load(server: Server, client: httpx.Client, song: Path, rounds: int) -> list[float]:
    """Probe every 20 ms while four clients post."""
    waits = []
    with ThreadPoolExecutor(4) as clients:
        for _ in range(rounds):
            posts = [clients.submit(server.post, song) for _ in range(4)]
            while not all(post.done() for post in posts):
                waits.append(probe(client, server.url))
                time.sleep(0.02)
            for post in posts:
                post.result().raise_for_status()
    return waits


def main() -> None:
    """Run the benchmark."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        song = Path(folder) / "song.mp3"
        make_song(song)
        with running_server(Path(folder)) as server, httpx.Client() as client:
            idle = [probe(client, server.url) for _ in range(200)]
            busy = under_load(server, client, song, options.rounds)
        print_report("probe", {"idle": percentiles(idle), "four_uploads": percentiles(busy)}, record=options.record)


if __name__ == "__main__":
    main()
