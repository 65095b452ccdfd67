"""What the service's own process costs when everything else is free: CPU time per track, and tracks per second.

Stages are replaced by canned ones, one after the other: the network, then the features, then the program that decodes,
and finally decoding as a whole. Each variant is a service of its own, and clients post a four-minute mp3 as the raw
body. The variants are measured in turn, round after round, so that the differences are not affected by changes in the
speed of the machine. ffmpeg alone is measured in every round as well: on a machine that does other work at the same
time, all CPU times rise, and their ratio to that of ffmpeg remains.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.canned_service import Stage
from bench.records import benchmark_parser
from bench.song import SONG_SECONDS, make_song
from bench.spread import spread
from bench.steady_load import SteadyLoad, measure_load
from bench.track import decode_alone
from tests.harness.records import print_record
from tests.harness.server import Server, running_server
from wholetrack.settings import available_cpus

_CLIENTS = 4
_SAMPLE_RATE = 22050


def measure(servers: dict[Stage, Server], song: Path, *, rounds: int, seconds: float) -> dict[str, Any]:
    """Measure all variants in turn.

    Args:
        servers: A service for each variant, by the last stage that is replaced.
        song: The recording that the clients post.
        rounds: Number of measurements of each variant.
        seconds: Length of each measurement.
    """
    loads: dict[Stage, list[SteadyLoad]] = {stage: [] for stage in servers}
    ffmpeg_ms = []
    for _ in range(rounds):
        ffmpeg_ms.append(1e3 * min(decode_alone(song, _SAMPLE_RATE).cpu_s for _ in range(3)))
        for stage, server in servers.items():
            loads[stage].append(measure_load(server, song, clients=_CLIENTS, seconds=seconds))
    replaced = {
        stage: {
            "main_process_cpu_ms_per_track": spread([load.main_process_cpu_ms for load in measured]),
            "cpu_ratio_to_ffmpeg": spread(
                [load.main_process_cpu_ms / ms for load, ms in zip(measured, ffmpeg_ms, strict=True)]
            ),
            "tracks_per_second": spread([load.load.per_second for load in measured]),
        }
        for stage, measured in loads.items()
    }
    return {"ffmpeg_cpu_ms": spread(ffmpeg_ms), "replaced": replaced}


def main() -> None:
    """Run the benchmark."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="number of measurements")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        song = Path(name, "song.mp3")
        make_song(song)
        servers = {}
        for stage in Stage:
            folder = Path(name, stage)
            folder.mkdir()
            program = ("bench.canned_service", str(song), stage)
            servers[stage] = stack.enter_context(running_server(folder, None, program))
        figures = {
            "song_seconds": SONG_SECONDS,
            "cores": available_cpus(),
            "clients": _CLIENTS,
            **measure(servers, song, rounds=options.rounds, seconds=options.seconds),
        }
        print_record("ceiling", figures, folder=options.record)


if __name__ == "__main__":
    main()
