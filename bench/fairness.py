"""Latency of a 3-minute song during a 2-hour mix, relative to its latency alongside another song."""

from __future__ import annotations

import http.client
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

from bench.records import benchmark_parser
from bench.song import make_song
from bench.spread import spread
from tests.harness.recordings import make_long_recording
from tests.harness.records import print_record
from tests.harness.server import Server, running_server
from tests.harness.waiting import until


def latency_s(server: Server, song: Path) -> float:
    """Return the time from the first byte sent to the last byte received, in seconds."""
    began = time.perf_counter()
    server.post(song, windows="none").raise_for_status()
    return time.perf_counter() - began


def latency_beside_another_s(server: Server, song: Path) -> float:
    """Send a song twice at the same time, and return the latency of the slower request in seconds."""
    with ThreadPoolExecutor(2) as clients:
        return max(clients.map(lambda _: latency_s(server, song), range(2)))


@contextmanager
def mix_in_progress(server: Server, mix: Path) -> Iterator[None]:
    """Have the service process a mix during the block; the client disconnects at the end."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
    with mix.open("rb") as body, closing(connection):
        connection.request(
            "POST", "/v1/predict?windows=none", body=body, headers={"Content-Length": str(mix.stat().st_size)}
        )
        until(lambda: bool(server.leftovers()["children"]), seconds=60, poll_s=0.01)
        yield
        assert server.leftovers()["children"], "the mix was finished before the song"
    server.wait_until_clean()


def main() -> None:
    """Run the benchmark."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="number of measurements")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, song, mix = folder / "source.mp3", folder / "song.mp3", folder / "mix.mp3"
        make_song(source)
        make_long_recording(source, song, 3)
        make_long_recording(source, mix, 120)
        with running_server(folder) as server:
            latency_s(server, song)
            beside, during = [], []
            for _ in range(options.rounds):
                beside.append(latency_beside_another_s(server, song))
                with mix_in_progress(server, mix):
                    during.append(latency_s(server, song))
        figures = {
            "beside_another_song_s": spread(beside),
            "during_a_mix_s": spread(during),
            "fair_wait_ratio": spread([late / early for late, early in zip(during, beside, strict=True)]),
        }
        print_record("fairness", figures, folder=options.record)


if __name__ == "__main__":
    main()
