"""CPU time of a 4-minute mp3 over HTTP with the default model, relative to another model.

Both are requested by turns from the same service, so that the ratio is not affected by changes in the speed of the
machine.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench.records import benchmark_parser
from bench.song import SONG_SECONDS, make_song
from bench.spread import spread
from tests.harness.records import print_record
from tests.harness.server import Server, running_server


def cpu_s(server: Server, song: Path, model: str) -> float:
    """Request a prediction, and return the CPU time of the service and its ffmpeg in seconds."""
    before = server.cpu_s()
    server.post(song, model=model, windows="none").raise_for_status()
    server.wait_until_clean()
    return server.cpu_s() - before


def main() -> None:
    """Run the benchmark."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--models", nargs=2, default=("wholetrack-crnn", "wholetrack-crnn-gtzan"))
    parser.add_argument("--models-dir", type=Path, help="folder of models that are not built in")
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    costs: dict[str, list[float]] = {model: [] for model in options.models}
    with tempfile.TemporaryDirectory() as name:
        song = Path(name, "song.mp3")
        make_song(song)
        added = {"models_dir": options.models_dir.resolve()} if options.models_dir else {}
        with running_server(Path(name), cache_mb=0, **added) as server:
            for _ in range(options.repeats + 1):
                for model, measured in costs.items():
                    measured.append(cpu_s(server, song, model))
    # The first request of each model warms up.
    first, second = (measured[1:] for measured in costs.values())
    figures = {
        "song_seconds": SONG_SECONDS,
        "cpu_s": {model: spread(measured[1:]) for model, measured in costs.items()},
        "ratio": spread([own / other for own, other in zip(first, second, strict=True)]),
    }
    print_record("models", figures, folder=options.record)


if __name__ == "__main__":
    main()
