"""How long a 3-minute song takes during a 2-hour mix, over the time it takes beside another song."""

from __future__ import annotations

import http.client
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

from tests.harness.recordings import make_long_recording
from tests.harness.report import arguments, make_song, print_report, spread
from tests.harness.server import Server, running_server


def seconds_of(server: Server, song: Path) -> float:
    """From the first byte sent to the last received."""
    began = time.perf_counter()
    server.post(song, windows="none").raise_for_status()
    return time.perf_counter() - began


def beside_another(server: Server, song: Path) -> float:
    """Two songs at once: the time of the one that is answered last."""
    with ThreadPoolExecutor(2) as clients:
        return max(clients.map(lambda _: seconds_of(server, song), range(2)))


@contextmanager
def playing(server: Server, mix: Path) -> Iterator[None]:
    """A mix that is being heard; its client leaves at the end."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
    with mix.open("rb") as body, closing(connection):
        connection.request(
            "POST", "/v1/predict?windows=none", body=body, headers={"Content-Length": str(mix.stat().st_size)}
        )
        while not server.leftovers()["children"]:
            time.sleep(0.01)
        yield
        assert server.leftovers()["children"], "the mix was over before the song"
    server.wait_until_clean()


def main() -> None:
    """Run the benchmark."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, song, mix = folder / "source.mp3", folder / "song.mp3", folder / "mix.mp3"
        make_song(source)
        make_long_recording(source, song, 3)
        make_long_recording(source, mix, 120)
        with running_server(folder) as server:
            seconds_of(server, song)
            beside, during = [], []
            for _ in range(options.rounds):
                beside.append(beside_another(server, song))
                with playing(server, mix):
                    during.append(seconds_of(server, song))
        figures = {
            "beside_another_song_s": spread(beside),
            "during_a_mix_s": spread(during),
            "fair_wait_ratio": spread([late / early for late, early in zip(during, beside, strict=True)]),
        }
        print_report("fairness", figures, record=options.record)


if __name__ == "__main__":
    main()
