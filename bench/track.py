"""Cost of a 4-minute mp3 over HTTP, compared with ffmpeg alone plus the network alone.

The features alone are measured as well; the remaining cost is HTTP, JSON, pipes and Python. All parts are measured in
turn, round after round, so that the ratios are not affected by changes in the speed of the machine.
"""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.records import benchmark_parser
from bench.song import SONG_SECONDS, make_song
from bench.spread import spread
from tests.harness.records import print_record
from tests.harness.server import Server, running_server
from wholetrack.contracts import Rows
from wholetrack.decoding.ffmpeg import find_ffmpeg
from wholetrack.inference.session import Session
from wholetrack.pipeline import Pipeline
from wholetrack.sandbox.child import set_scheduling
from wholetrack.served_model import ServedModel
from wholetrack.settings import DeviceChoice, Settings
from wholetrack.startup import build_pipeline

_PARTS = ("decode_alone", "session_alone", "features_alone")
_MAX_DURATION_S = 3600


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU time and wall-clock time in seconds."""

    cpu_s: float
    wall_s: float


def decode_alone(song: Path, sample_rate: int, *, service_scheduling: bool = True) -> Cost:
    """Run the ffmpeg command of the service and discard its output.

    Args:
        song: The file to decode.
        sample_rate: Sample rate of the output in Hz.
        service_scheduling: Whether to schedule ffmpeg as the service does, or as the kernel does by default.
    """
    schedule = partial(set_scheduling, min(os.sched_getaffinity(0)))
    ffmpeg = find_ffmpeg()
    with song.open("rb") as file:
        command = ffmpeg.decode_command(f"file:/dev/fd/{file.fileno()}", marker=16 * "0" + ":", sample_rate=sample_rate)
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        decoder = subprocess.Popen(
            command,
            pass_fds=(file.fileno(),),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=schedule if service_scheduling else None,  # noqa: PLW1509 - there is only one thread
        )
        assert decoder.wait() == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(cpu_s, time.perf_counter() - began)


def session_alone(session: Session, windows: Rows) -> Cost:
    """Run the network on windows that are in memory, in the batches of the service."""
    cpu, began = time.process_time(), time.perf_counter()
    for first in range(0, len(windows), session.max_batch):
        session.run(windows[first : first + session.max_batch])
    return Cost(time.process_time() - cpu, time.perf_counter() - began)


def features_alone(served: ServedModel, blocks: Sequence[NDArray[np.float32]]) -> Cost:
    """Compute normalised windows from samples that are in memory, in blocks of the size read from ffmpeg's pipe."""
    cpu, began = time.process_time(), time.perf_counter()
    stream = served.features.stream(served.grid(None))
    for samples in blocks:
        served.features.normalised(stream.push(samples))
    served.features.normalised(stream.finish())
    return Cost(time.process_time() - cpu, time.perf_counter() - began)


def over_http(server: Server, song: Path) -> Cost:
    """Request a prediction; the CPU time is that of the service and its ffmpeg, without the client's."""
    before_s, began = server.cpu_s(), time.perf_counter()
    server.post(song).raise_for_status()
    wall_s = time.perf_counter() - began
    server.wait_until_clean()
    return Cost(server.cpu_s() - before_s, wall_s)


def measure(pipeline: Pipeline, server: Server, song: Path, repeats: int) -> dict[str, list[Cost]]:
    """Measure the service and its parts in turn; the first round warms up and is not returned."""
    served = pipeline.model(None)
    session = served.engine.classifiers[0]
    assert isinstance(session, Session)
    sample_rate = served.card.audio.sample_rate
    windows = pipeline.normalised_windows(song, max_duration_s=_MAX_DURATION_S)
    with pipeline.decoder.open(song, sample_rate=sample_rate, max_duration_s=_MAX_DURATION_S) as decoding:
        blocks = list(decoding.blocks())
    costs: dict[str, list[Cost]] = {name: [] for name in (*_PARTS, "service")}
    for _ in range(repeats + 1):
        costs["decode_alone"].append(decode_alone(song, sample_rate))
        costs["session_alone"].append(session_alone(session, windows))
        costs["features_alone"].append(features_alone(served, blocks))
        costs["service"].append(over_http(server, song))
    return {name: measured[1:] for name, measured in costs.items()}


def summarise(costs: dict[str, list[Cost]]) -> dict[str, object]:
    """Return the costs, each part's share of the service's CPU time, and the ratio to decoding plus network."""
    service = costs["service"]
    floors = [d.cpu_s + s.cpu_s for d, s in zip(costs["decode_alone"], costs["session_alone"], strict=True)]
    return {
        **{
            name: {
                "cpu_s": spread([cost.cpu_s for cost in measured]),
                "wall_s": spread([cost.wall_s for cost in measured]),
            }
            for name, measured in costs.items()
        },
        "cpu_share_of_service": {
            name: spread([part.cpu_s / whole.cpu_s for part, whole in zip(costs[name], service, strict=True)])
            for name in _PARTS
        },
        "cpu_ratio_to_floor": spread([cost.cpu_s / floor for cost, floor in zip(service, floors, strict=True)]),
    }


def main() -> None:
    """Run the benchmark."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=7, help="number of measurements")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        song = folder / "song.mp3"
        make_song(song)
        pipeline = build_pipeline(Settings(device=DeviceChoice.CPU))
        n_windows = len(pipeline.normalised_windows(song, max_duration_s=_MAX_DURATION_S))
        with running_server(folder) as server:
            costs = measure(pipeline, server, song, options.repeats)
        model = pipeline.model(None).card.name
        pipeline.close()
    figures = {"model": model, "song_seconds": SONG_SECONDS, "windows": n_windows, **summarise(costs)}
    print_record("track", figures, folder=options.record)


if __name__ == "__main__":
    main()
