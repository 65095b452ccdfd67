"""The service on Ray compared with the service alone, on the same cores: throughput, latency, and where CPU time goes.

Clusters of 1, 2 and 4 nodes run on this machine, in turn with the service alone, round after round. Only one of them is
running at a time, because an idle cluster uses CPU time as well. All nodes share the cores of the machine, so that more
nodes show what distribution costs, not how throughput grows.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.clients import Load, run_clients
from bench.records import benchmark_parser
from bench.song import SONG_SECONDS, make_song
from bench.spread import spread
from tests.harness.processes import descendants
from tests.harness.ray_cluster import running_cluster
from tests.harness.records import print_record
from tests.harness.server import running_server
from wholetrack.settings import available_cpus

_CLIENTS = (1, 4)
_REQUESTS = {1: 8, 4: 24}
_IDLE_S = 5.0

# Titles of processes, and what they are counted as. The first that matches applies.
_GROUPS = (
    ("-m wholetrack serve", "service"),
    ("ServeReplica:wholetrack:ingress", "ingress"),
    ("ServeReplica:wholetrack:analysis", "analysis"),
    ("ServeReplica:wholetrack:network", "network"),
    ("ProxyActor", "proxy"),
    ("wholetrack", "decoding and features"),
    ("ffmpeg", "decoding and features"),
)
_OTHERS = "cluster"


@dataclass(frozen=True, slots=True)
class _Turn:
    """One measurement of one service.

    Attributes:
        loads: Latencies by number of clients.
        cpu_s: CPU seconds per track by group of processes, with the largest number of clients.
        idle: CPUs that are busy without any request.
    """

    loads: dict[int, Load]
    cpu_s: dict[str, float]
    idle: float


def _measure(predict: Callable[[], object], processes: Callable[[], Iterable[psutil.Process]]) -> _Turn:
    for _ in range(4):
        predict()
    before = _cpu_s(processes())
    time.sleep(_IDLE_S)
    idle = sum(_difference(before, _cpu_s(processes())).values()) / _IDLE_S
    loads, spent = {}, {}
    for clients in _CLIENTS:
        before = _cpu_s(processes())
        loads[clients] = run_clients(predict, clients=clients, requests=_REQUESTS[clients])
        total = _difference(before, _cpu_s(processes()))
        spent = {group: seconds / _REQUESTS[clients] for group, seconds in total.items()}
    return _Turn(loads, spent, idle)


def _cpu_s(processes: Iterable[psutil.Process]) -> dict[str, float]:
    """Return the CPU seconds of processes and of their children that have ended, by group."""
    found: dict[str, float] = defaultdict(float)
    for process in processes:
        try:
            times, title = process.cpu_times(), " ".join(process.cmdline()) or process.name()
            name = process.name()
        except psutil.Error:
            continue
        group = next((group for part, group in _GROUPS if part in title or part in name), _OTHERS)
        found[group] += times.user + times.system + times.children_user + times.children_system
    return found


def _difference(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {group: after[group] - before.get(group, 0.0) for group in after}


@contextmanager
def _alone(song: Path, folder: Path) -> Iterator[_Turn]:
    with running_server(folder) as server:

        def processes() -> list[psutil.Process]:
            return [server.process, *(child for child, _ in descendants(server.process))]

        yield _measure(lambda: server.post(song, windows="none").raise_for_status(), processes)


@contextmanager
def _on_ray(song: Path, folder: Path, *, nodes: int, cores: int) -> Iterator[_Turn]:
    per_node = max(1, cores // nodes)
    replicas = {"autoscaling_config": {"min_replicas": nodes, "max_replicas": nodes}, "max_replicas_per_node": 1}
    options = {"analysis": replicas, "network": replicas}
    settings = {"tracks_at_once": per_node, "cpu_threads": per_node}
    with running_cluster(folder, options, nodes=[2] * nodes, **settings) as cluster:

        def processes() -> list[psutil.Process]:
            return [child for child, _ in cluster.processes()]

        yield _measure(lambda: cluster.post(song, windows="none").raise_for_status(), processes)


def _summary(turns: list[_Turn], alone: list[_Turn]) -> dict[str, Any]:
    busiest = max(_CLIENTS)
    groups = sorted({group for turn in turns for group in turn.cpu_s})
    return {
        "loads": [[load.as_dict() for load in turn.loads.values()] for turn in turns],
        "throughput_ratio": spread(
            [
                turn.loads[busiest].per_second / other.loads[busiest].per_second
                for turn, other in zip(turns, alone, strict=True)
            ]
        ),
        "median_latency_ratio": {
            str(n): spread(
                [
                    turn.loads[n].percentile_s(50) / other.loads[n].percentile_s(50)
                    for turn, other in zip(turns, alone, strict=True)
                ]
            )
            for n in _CLIENTS
        },
        "cpu_s_per_track": {
            group: round(sum(turn.cpu_s.get(group, 0.0) for turn in turns) / len(turns), 3) for group in groups
        },
        "idle_cpus": round(sum(turn.idle for turn in turns) / len(turns), 3),
    }


def main() -> None:
    """Run the benchmark."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="number of measurements")
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4], help="sizes of the clusters")
    options = parser.parse_args()
    cores = available_cpus()
    turns: dict[int, list[_Turn]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        song = Path(folder) / "song.mp3"
        make_song(song)
        for number in range(options.rounds):
            for nodes in (0, *options.nodes):
                home = Path(folder) / f"{number}-{nodes}"
                home.mkdir()
                with _on_ray(song, home, nodes=nodes, cores=cores) if nodes else _alone(song, home) as turn:
                    turns[nodes].append(turn)
    alone = turns.pop(0)
    figures = {
        "song_seconds": SONG_SECONDS,
        "cores": cores,
        "alone": _summary(alone, alone),
        "nodes": {str(nodes): _summary(measured, alone) for nodes, measured in turns.items()},
    }
    print_record("ray_serve", figures, folder=options.record)


if __name__ == "__main__":
    main()
