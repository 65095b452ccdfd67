"""Tracks per second over HTTP by number of clients, compared with the baseline script on as many cores.

The service uses the same network as the script in float32, and is measured in int8 as well. All of them are measured in
turn, round after round, so that the ratios are not affected by changes in the speed of the machine.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.baseline_script import baseline_script
from bench.clients import Load, Predict, run_clients
from bench.records import benchmark_parser
from bench.song import SONG_SECONDS, make_song
from bench.spread import spread
from tests.harness.records import print_record
from tests.harness.server import Server, running_server
from wholetrack.inference.bundle import BUILT_IN_MODELS
from wholetrack.settings import Precision, available_cpus

_CLIENTS = (1, 4, 16)

# It has a quantised network, and the single input that the baseline script computes.
_MODEL = "wholetrack-crnn-gtzan"


@dataclass(frozen=True, slots=True)
class _Round:
    """One measurement of everything that is compared; the measurements of the service are by number of clients."""

    float32: dict[int, Load]
    int8: dict[int, Load]
    script: Load
    processes: Load


def measure(
    float32: Predict, int8: Predict, script: Predict, processes: Predict, *, cores: int, rounds: int
) -> dict[str, Any]:
    """Measure the service with every number of clients, the script with one, and the processes with one per core.

    Args:
        float32: Requests a prediction from the service in float32.
        int8: Requests a prediction from the service in int8.
        script: Has the baseline script classify the song.
        processes: Has one of several processes of the baseline script classify the song.
        cores: Number of those processes.
        rounds: Number of measurements.
    """
    measured = [
        _Round(
            _by_clients(float32),
            _by_clients(int8),
            run_clients(script, clients=1, requests=4),
            run_clients(processes, clients=cores, requests=4 * cores),
        )
        for _ in range(rounds)
    ]
    return {
        "song_seconds": SONG_SECONDS,
        "service": [[load.as_dict() for load in one.float32.values()] for one in measured],
        "service_int8": [[load.as_dict() for load in one.int8.values()] for one in measured],
        "baseline_script": [one.script.as_dict() for one in measured],
        "baseline_script_in_processes": [one.processes.as_dict() for one in measured],
        "throughput_ratio_to_baseline_script": _ratios(
            measured, lambda one, n: one.float32[n].per_second / one.script.per_second
        ),
        "throughput_ratio_to_baseline_script_in_processes": _ratios(
            measured, lambda one, n: one.float32[n].per_second / one.processes.per_second
        ),
        "throughput_ratio_of_int8": _ratios(
            measured, lambda one, n: one.int8[n].per_second / one.float32[n].per_second
        ),
    }


def _by_clients(predict: Predict) -> dict[int, Load]:
    return {n: run_clients(predict, clients=n, requests=max(2 * n, 8)) for n in _CLIENTS}


def _ratios(rounds: list[_Round], ratio: Callable[[_Round, int], float]) -> dict[str, Any]:
    """Return the spread of a ratio over all rounds, by number of clients."""
    return {str(n): spread([ratio(one, n) for one in rounds]) for n in _CLIENTS}


def _requests(server: Server, song: Path) -> Predict:
    """Return a function that requests a prediction, after one request to warm up."""

    def predict() -> None:
        server.post(song, windows="none").raise_for_status()

    predict()
    return predict


def main() -> None:
    """Run the benchmark."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="number of measurements")
    options = parser.parse_args()
    cores = available_cpus()
    bundle = max((BUILT_IN_MODELS / _MODEL).iterdir())
    with tempfile.TemporaryDirectory() as folder:
        song = Path(folder) / "song.mp3"
        make_song(song)
        homes = [Path(folder, precision) for precision in Precision]
        for home in homes:
            home.mkdir()
        with (
            running_server(homes[0], default_model=_MODEL) as float32,
            running_server(homes[1], default_model=_MODEL, cpu_precision=Precision.INT8) as int8,
            baseline_script(song, bundle, processes=1, threads=cores) as script,
            baseline_script(song, bundle, processes=cores, threads=1) as processes,
        ):
            services = _requests(float32, song), _requests(int8, song)
            figures = measure(*services, script, processes, cores=cores, rounds=options.rounds)
            print_record("throughput", figures, folder=options.record)


if __name__ == "__main__":
    main()
