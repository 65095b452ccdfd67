"""Tracks a second by number of clients, through HTTP, beside the way of the published systems on as many cores.

The two are measured in turn, round after round, so that the ratio holds where the machine's speed drifts.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from bench.clients import Ask, load
from bench.report import SONG_SECONDS, arguments, make_song, print_report, spread
from bench.running import running_server
from bench.seed_way import seed_way
from service.settings import Settings, available_cpus

_CLIENTS = (1, 4, 16)


def measure(service: Ask, seeds: Ask, *, cores: int, rounds: int) -> dict[str, Any]:
    """Both by turns; the service with every number of clients, the seeds' way with as many as there are cores."""
    loads = [
        {n: load(service, clients=n, answers=max(2 * n, 8)) for n in _CLIENTS}
        | {0: load(seeds, clients=cores, answers=2 * cores)}
        for _ in range(rounds)
    ]
    return {
        "song_seconds": SONG_SECONDS,
        "service": [[one[n].as_dict() for n in _CLIENTS] for one in loads],
        "seed_way": [one[0].as_dict() for one in loads],
        "throughput_ratio_to_seed_way": {
            str(n): spread([one[n].per_second / one[0].per_second for one in loads]) for n in _CLIENTS
        },
    }


def main() -> None:
    """Run the benchmark."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    settings, cores = Settings(), available_cpus()
    bundles = settings.models_dir / settings.default_model
    bundle = max(bundles.iterdir())
    with tempfile.TemporaryDirectory() as folder:
        song = Path(folder) / "song.mp3"
        make_song(song)
        with running_server(Path(folder)) as server, seed_way(song, bundle, processes=cores) as seeds:

            def service() -> None:
                server.post(song, windows="none").raise_for_status()

            service()
            print_report(
                "throughput", measure(service, seeds, cores=cores, rounds=options.rounds), record=options.record
            )


if __name__ == "__main__":
    main()
