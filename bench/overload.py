"""Requests at four times capacity: how many are accepted, with what latency, and how fast the others are refused.

Measured with different limits on the number of admitted requests (``WHOLETRACK_MAX_REQUESTS``). Capacity and the
latency of a single client are measured with the default limit, which is one of them.
"""

from __future__ import annotations

import http.client
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.clients import Load, Predict, run_clients
from bench.records import benchmark_parser
from bench.song import make_song
from tests.harness.records import print_record
from tests.harness.server import Server, running_server
from wholetrack.decoding.ffmpeg import find_ffmpeg
from wholetrack.settings import Settings, available_cpus

_CLIP_SECONDS = 30
_LOAD_FACTOR = 4
_MAX_THREADS = 256


@dataclass(frozen=True, slots=True)
class Outcome:
    """The response to one request: its status, its latency in seconds, and its ``Retry-After`` if it has one."""

    status: int
    seconds: float
    retry_after_s: float | None


def send(server: Server, clip: bytes) -> Outcome:
    """Send one request, using as little CPU as possible, because the service shares the machine."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=120)
    with closing(connection):
        # A refused request gets its response before the whole clip is sent.
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.request("POST", "/v1/predict?windows=none", clip)
        response = connection.getresponse()
        response.read()
    retry = response.headers.get("retry-after")
    return Outcome(response.status, time.perf_counter() - began, float(retry) if retry else None)


def send_at_rate(server: Server, clip: bytes, *, per_second: float, seconds: float) -> list[Outcome]:
    """Send requests at a constant rate, independent of the responses."""
    n_requests = int(per_second * seconds)
    with ThreadPoolExecutor(min(n_requests, _MAX_THREADS)) as threads:
        began, requests = time.perf_counter(), []
        for number in range(n_requests):
            time.sleep(max(0.0, began + number / per_second - time.perf_counter()))
            requests.append(threads.submit(send, server, clip))
        return [request.result() for request in requests]


def summarise(outcomes: list[Outcome], *, seconds: float, capacity: Load, unloaded: Load) -> dict[str, Any]:
    """Return the accepted share of capacity and the latencies of accepted and refused requests."""
    accepted = [one.seconds for one in outcomes if one.status == 200]
    refused = [one for one in outcomes if one.status == 429]
    p95 = float(np.percentile(accepted, 95))
    return {
        "arrivals": len(outcomes),
        "accepted": len(accepted),
        "refused": len(refused),
        "other": len(outcomes) - len(accepted) - len(refused),
        "accepted_share_of_capacity": round(len(accepted) / seconds / capacity.per_second, 3),
        "accepted_p95_s": round(p95, 3),
        "p95_ratio_to_unloaded": round(p95 / unloaded.percentile_s(95), 3),
        "refused_p95_ms": round(1e3 * float(np.percentile([one.seconds for one in refused], 95)), 1),
        "retry_after_median_s": float(np.median([one.retry_after_s or 0 for one in refused])),
    }


@contextmanager
def warm_server(folder: Path, clip: bytes, **settings: Any) -> Iterator[tuple[Server, Predict]]:
    """Yield a new service that has processed one clip, and a function that has it process the clip again."""
    folder.mkdir()
    with running_server(folder, **settings) as server:

        def predict() -> None:
            assert send(server, clip).status == 200

        predict()
        yield server, predict


def measure(folder: Path, seconds: float) -> dict[str, Any]:
    """Measure capacity, and then the behaviour at four times capacity for every limit."""
    clip, cores = _make_clip(folder), available_cpus()
    with warm_server(folder / "capacity", clip) as (_, predict):
        unloaded = run_clients(predict, clients=1, requests=30)
        capacity = run_clients(predict, clients=2 * cores, requests=60 * cores)
    by_max_requests = {}
    for max_requests in (cores, cores + 1, Settings().max_requests):
        with warm_server(folder / str(max_requests), clip, max_requests=max_requests) as (server, _):
            outcomes = send_at_rate(server, clip, per_second=_LOAD_FACTOR * capacity.per_second, seconds=seconds)
        by_max_requests[str(max_requests)] = summarise(outcomes, seconds=seconds, capacity=capacity, unloaded=unloaded)
    return {
        "clip_seconds": _CLIP_SECONDS,
        "seconds": seconds,
        "capacity": capacity.as_dict(),
        "unloaded": unloaded.as_dict(),
        "by_max_requests": by_max_requests,
    }


def _make_clip(folder: Path) -> bytes:
    song, clip = folder / "song.mp3", folder / "clip.mp3"
    make_song(song)
    command = [str(find_ffmpeg().path), "-v", "error", "-nostdin", "-i", str(song), "-t", str(_CLIP_SECONDS)]
    subprocess.run([*command, "-c", "copy", str(clip)], check=True)
    return clip.read_bytes()


def main() -> None:
    """Run the benchmark."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="duration of the overload for each limit")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print_record("overload", measure(Path(folder), options.seconds), folder=options.record)


if __name__ == "__main__":
    main()
