"""Four times as many requests as the service can answer: what is accepted, how late, and how fast the rest hear no.

By how many are admitted at a time (``WHOLETRACK_MAX_REQUESTS``), the default among them, which is also what capacity is
measured with.
"""

from __future__ import annotations

import http.client
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.clients import Load, load
from tests.harness.report import arguments, make_song, print_report
from tests.harness.server import Server, running_server
from wholetrack.decoding.ffmpeg import find_ffmpeg
from wholetrack.settings import Settings, available_cpus

_CLIP_SECONDS = 30
_TIMES = 4


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request: what it was answered with, after how many seconds, and when to come back if it was turned away."""

    status: int
    seconds: float
    retry_after_s: float | None


def ask(server: Server, clip: bytes) -> Arrival:
    """Post once, whatever comes, with as little of the processor as possible: the service needs it."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=120)
    with closing(connection):
        # Who is refused is answered before the whole clip is sent.
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.request("POST", "/v1/predict?windows=none", clip)
        response = connection.getresponse()
        response.read()
    retry = response.headers.get("retry-after")
    return Arrival(response.status, time.perf_counter() - began, float(retry) if retry else None)


def storm(server: Server, clip: bytes, *, per_second: float, seconds: float) -> list[Arrival]:
    """Requests at a steady rate, however the earlier ones fare."""
    n_requests = int(per_second * seconds)
    with ThreadPoolExecutor(min(n_requests, 256)) as threads:
        began, asked = time.perf_counter(), []
        for number in range(n_requests):
            time.sleep(max(0.0, began + number / per_second - time.perf_counter()))
            asked.append(threads.submit(ask, server, clip))
        return [one.result() for one in asked]


def figures(arrivals: list[Arrival], *, seconds: float, capacity: Load, unloaded: Load) -> dict[str, Any]:
    """What was kept of the capacity, and how the two kinds of answers came."""
    accepted = [one.seconds for one in arrivals if one.status == 200]
    refused = [one for one in arrivals if one.status == 429]
    p95 = float(np.percentile(accepted, 95))
    return {
        "arrivals": len(arrivals),
        "accepted": len(accepted),
        "refused": len(refused),
        "other": len(arrivals) - len(accepted) - len(refused),
        "accepted_share_of_capacity": round(len(accepted) / seconds / capacity.per_second, 3),
        "accepted_p95_s": round(p95, 3),
        "p95_ratio_to_unloaded": round(p95 / unloaded.percentile_s(95), 3),
        "refused_p95_ms": round(1e3 * float(np.percentile([one.seconds for one in refused], 95)), 1),
        "retry_after_median_s": float(np.median([one.retry_after_s or 0 for one in refused])),
    }


@contextmanager
def serving(folder: Path, clip: bytes, **settings: Any) -> Iterator[tuple[Server, Callable[[], None]]]:
    """A fresh service that has answered once, and what has it answer again."""
    folder.mkdir()
    with running_server(folder, **settings) as server:

        def one() -> None:
            assert ask(server, clip).status == 200

        one()
        yield server, one


def main() -> None:
    """Run the benchmark."""
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    cores = available_cpus()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        song, clip = folder / "song.mp3", folder / "clip.mp3"
        make_song(song)
        command = [str(find_ffmpeg().path), "-v", "error", "-nostdin", "-i", str(song), "-t", str(_CLIP_SECONDS)]
        subprocess.run([*command, "-c", "copy", str(clip)], check=True)
        content = clip.read_bytes()
        with serving(folder / "capacity", content) as (_, one):
            unloaded = load(one, clients=1, answers=30)
            capacity = load(one, clients=2 * cores, answers=60 * cores)
        by_places = {}
        for places in (cores, cores + 1, Settings().max_requests):
            with serving(folder / str(places), content, max_requests=places) as (server, _):
                arrivals = storm(server, content, per_second=_TIMES * capacity.per_second, seconds=options.seconds)
            by_places[str(places)] = figures(arrivals, seconds=options.seconds, capacity=capacity, unloaded=unloaded)
        found = {
            "clip_seconds": _CLIP_SECONDS,
            "seconds": options.seconds,
            "capacity": capacity.as_dict(),
            "unloaded": unloaded.as_dict(),
            "by_places": by_places,
        }
        print_report("overload", found, record=options.record)


if __name__ == "__main__":
    main()
