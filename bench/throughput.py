"""Tracks a second by number of clients, through HTTP, beside the way of the published systems on as many cores.

The service answers with the same network as they do, in float32, and once more in int8. All are measured in turn, round
after round, so that the ratios hold where the machine's speed drifts.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.clients import Ask, Load, load
from bench.seed_way import seed_way
from tests.harness.report import SONG_SECONDS, arguments, make_song, print_report, spread
from tests.harness.server import Server, running_server
from wholetrack.inference.bundle import BUILT_IN_MODELS
from wholetrack.settings import Precision, Settings, available_cpus

_CLIENTS = (1, 4, 16)


@dataclass(frozen=True, slots=True)
class _Round:
    """One turn of each: the service in both precisions by clients, the seeds' way, and that in many processes."""

    float32: dict[int, Load]
    int8: dict[int, Load]
    seeds: Load
    processes: Load


def measure(float32: Ask, int8: Ask, seeds: Ask, processes: Ask, *, cores: int, rounds: int) -> dict[str, Any]:
    """All by turns; the service with every number of clients, the seeds' way with one, and with as many as cores."""
    found = [
        _Round(
            _by_clients(float32),
            _by_clients(int8),
            load(seeds, clients=1, answers=4),
            load(processes, clients=cores, answers=4 * cores),
        )
        for _ in range(rounds)
    ]
    return {
        "song_seconds": SONG_SECONDS,
        "service": [[one.as_dict() for one in turn.float32.values()] for turn in found],
        "service_int8": [[one.as_dict() for one in turn.int8.values()] for turn in found],
        "seed_way": [turn.seeds.as_dict() for turn in found],
        "seed_way_in_processes": [turn.processes.as_dict() for turn in found],
        "throughput_ratio_to_seed_way": {
            str(n): spread([turn.float32[n].per_second / turn.seeds.per_second for turn in found]) for n in _CLIENTS
        },
        "throughput_ratio_to_seed_way_in_processes": {
            str(n): spread([turn.float32[n].per_second / turn.processes.per_second for turn in found]) for n in _CLIENTS
        },
        "throughput_ratio_of_int8": {
            str(n): spread([turn.int8[n].per_second / turn.float32[n].per_second for turn in found]) for n in _CLIENTS
        },
    }


def _by_clients(ask: Ask) -> dict[int, Load]:
    return {n: load(ask, clients=n, answers=max(2 * n, 8)) for n in _CLIENTS}


def _asking(server: Server, song: Path) -> Ask:
    def ask() -> None:
        server.post(song, windows="none").raise_for_status()

    ask()
    return ask


def main() -> None:
    """Run the benchmark."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    settings, cores = Settings(), available_cpus()
    bundles = BUILT_IN_MODELS / settings.default_model
    bundle = max(bundles.iterdir())
    with tempfile.TemporaryDirectory() as folder:
        song = Path(folder) / "song.mp3"
        make_song(song)
        homes = [Path(folder, precision) for precision in Precision]
        for home in homes:
            home.mkdir()
        with (
            running_server(homes[0]) as float32,
            running_server(homes[1], cpu_precision=Precision.INT8) as int8,
            seed_way(song, bundle, processes=1, threads=cores) as seeds,
            seed_way(song, bundle, processes=cores, threads=1) as processes,
        ):
            asking = _asking(float32, song), _asking(int8, song), seeds, processes
            found = measure(*asking, cores=cores, rounds=options.rounds)
            print_report("throughput", found, record=options.record)


if __name__ == "__main__":
    main()
