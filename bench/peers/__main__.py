"""The service compared with serving frameworks: throughput and latency at 1, 4, 16 and 64 clients.

Each framework has a virtual environment of its own, created when it is first needed. The framework and the service are
measured in turn, round after round, with only one of them running at a time, so that the ratios are not affected by
changes in the speed of the machine.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.clients import Load, Predict, run_clients
from bench.environments import ENVIRONMENTS, environment
from bench.peers import SETUPS
from bench.peers.frameworks import FRAMEWORKS, Framework, running_framework
from bench.records import benchmark_parser
from bench.song import SONG_SECONDS, make_song
from bench.spread import spread
from tests.harness.records import print_record
from tests.harness.server import running_server

_CLIENTS = (1, 4, 16, 64)
_REQUESTS = {1: 6, 4: 8, 16: 16, 64: 64}
_WARM_UP_REQUESTS = 6
# The frameworks refuse nothing either.
_MAX_WAIT_S = 600
_SERVICE = "service"
_SHARE_TOLERANCE = 1e-3

Round = dict[str, dict[int, Load]]
"""Loads by what was measured, the service or a set-up of the framework, and by number of clients."""


def loads(predict: Predict) -> dict[int, Load]:
    """Measure every number of clients, after requests that let workers warm up and adaptive batching adapt."""
    for clients in _CLIENTS:
        run_clients(predict, clients=clients, requests=_WARM_UP_REQUESTS)
    return {clients: run_clients(predict, clients=clients, requests=_REQUESTS[clients]) for clients in _CLIENTS}


def measure_service(folder: Path, song: Path) -> tuple[dict[int, Load], dict[str, float]]:
    """Measure the service, and return the loads and the share of every genre."""
    home = folder / _SERVICE
    home.mkdir()
    with running_server(home, max_wait_s=_MAX_WAIT_S) as server:

        def predict() -> dict[str, Any]:
            response = server.post(song, windows="none", top_k=16, timeout_s=_MAX_WAIT_S)
            response.raise_for_status()
            answer: dict[str, Any] = response.json()
            return answer

        measured = loads(predict)
        ranked = predict()["prediction"]["summed_score"]["top_k"]
    return measured, {each["genre"]: each["share"] for each in ranked}


def measure_framework(
    framework: Framework, executables: Path, setup: str, folder: Path, song: Path
) -> tuple[dict[int, Load], dict[str, float]]:
    """Measure a framework in one set-up, and return the loads and the share of every genre."""
    with running_framework(framework, executables, setup, folder / f"{setup}.log", song) as predict:
        shares: dict[str, float] = predict()["summed_score"]
        return loads(predict), shares


def measure(folder: Path, executables: Path, framework: Framework, song: Path, *, service_first: bool) -> Round:
    """Measure the service and both set-ups once, one at a time, and check that they predict the same shares."""
    folder.mkdir()
    measured, shares = {}, {}
    for name in (_SERVICE, *SETUPS) if service_first else (*SETUPS, _SERVICE):
        if name == _SERVICE:
            measured[name], shares[name] = measure_service(folder, song)
        else:
            measured[name], shares[name] = measure_framework(framework, executables, name, folder, song)
    for setup in SETUPS:
        for genre, share in shares[_SERVICE].items():
            assert abs(shares[setup][genre] - share) < _SHARE_TOLERANCE, (setup, shares)
    return measured


def compare(rounds: list[Round], setup: str) -> dict[str, Any]:
    """Return the service's figures divided by those of a framework in one set-up, by number of clients."""

    def ratios(figure: Callable[[Load], float]) -> dict[str, Any]:
        return {str(n): spread([figure(one[_SERVICE][n]) / figure(one[setup][n]) for one in rounds]) for n in _CLIENTS}

    return {
        "loads": [[one[setup][n].as_dict() for n in _CLIENTS] for one in rounds],
        "throughput_ratio": ratios(lambda load: load.per_second),
        "median_ratio": ratios(lambda load: load.percentile_s(50)),
        "p95_ratio": ratios(lambda load: load.percentile_s(95)),
    }


def main() -> None:
    """Run the benchmark."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="number of measurements")
    parser.add_argument("--environments", type=Path, default=ENVIRONMENTS, help="folder for virtual environments")
    parser.add_argument("--peers", nargs="+", default=list(FRAMEWORKS), choices=list(FRAMEWORKS), help="frameworks")
    options = parser.parse_args()
    figures: dict[str, Any] = {"song_seconds": SONG_SECONDS, "peers": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        song = folder / "song.mp3"
        make_song(song)
        for key in options.peers:
            framework = FRAMEWORKS[key]
            executables = environment(options.environments / key, framework.package)
            rounds = [
                measure(folder / f"{key}-{i}", executables, framework, song, service_first=i % 2 == 0)
                for i in range(options.rounds)
            ]
            figures["peers"][key] = {
                "package": framework.package,
                "service": [[one[_SERVICE][n].as_dict() for n in _CLIENTS] for one in rounds],
                "setups": {setup: compare(rounds, setup) for setup in SETUPS},
            }
    print_record("peers", figures, folder=options.record)


if __name__ == "__main__":
    main()
