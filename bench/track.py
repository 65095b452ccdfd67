"""What a 4-minute mp3 costs through the service, beside its floor: ffmpeg alone plus the session alone.

Features alone are measured too; what no part explains is HTTP, JSON, pipes and Python. All are measured in turn, round
after round, so that ratios hold where the machine's speed drifts.
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

from tests.harness.report import SONG_SECONDS, arguments, make_song, print_report, spread
from tests.harness.server import Server, running_server
from wholetrack.decoding.ffmpeg import find_ffmpeg
from wholetrack.features.normalise import normalise
from wholetrack.features.windows import WindowCutter
from wholetrack.inference.session import Session
from wholetrack.pipeline import Pipeline, ServedModel
from wholetrack.sandbox.child import set_scheduling
from wholetrack.settings import DeviceChoice, Settings
from wholetrack.startup import build_pipeline

_PARTS = ("decode_alone", "session_alone", "features_alone")


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of CPU and of wall time."""

    cpu_s: float
    wall_s: float


def decode_alone(song: Path, sample_rate: int, *, settled: bool = True) -> Cost:
    """The service's ffmpeg command, its output thrown away, run as the service does or as the kernel would."""
    with song.open("rb") as file:
        command = find_ffmpeg().decode_command(file.fileno(), sample_rate=sample_rate, max_duration_s=3600)
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        decoder = subprocess.Popen(
            command,
            pass_fds=(file.fileno(),),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=partial(set_scheduling, min(os.sched_getaffinity(0))) if settled else None,  # noqa: PLW1509 - no thread but this one
        )
        assert decoder.wait() == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(cpu_s, time.perf_counter() - began)


def session_alone(session: Session, windows: NDArray[np.float32]) -> Cost:
    """The network on windows that are ready, in the service's batches."""
    cpu, began = time.process_time(), time.perf_counter()
    for first in range(0, len(windows), session.max_batch):
        session.run(windows[first : first + session.max_batch])
    return Cost(time.process_time() - cpu, time.perf_counter() - began)


def features_alone(served: ServedModel, blocks: Sequence[NDArray[np.float32]]) -> Cost:
    """From samples that are ready to normalised windows, block by block as they come from ffmpeg's pipe."""
    cpu, began = time.process_time(), time.perf_counter()
    stream, normalisation = served.features.stream(), served.card.features.normalisation
    cutter = WindowCutter(served.grid(None), n_mels=served.card.features.n_mels, silence=served.features.silence)
    for samples in blocks:
        normalise(cutter.push(stream.push(samples), n_samples=stream.n_samples).frames, normalisation)
    normalise(cutter.finish(stream.finish(), n_samples=stream.n_samples).frames, normalisation)
    return Cost(time.process_time() - cpu, time.perf_counter() - began)


def through_http(server: Server, song: Path) -> Cost:
    """The whole way; the CPU time of the service and its ffmpeg, not of the client."""
    before_s, began = server.cpu_s(), time.perf_counter()
    server.post(song).raise_for_status()
    wall_s = time.perf_counter() - began
    server.wait_until_clean()
    return Cost(server.cpu_s() - before_s, wall_s)


def measure(pipeline: Pipeline, server: Server, song: Path, repeats: int) -> dict[str, object]:
    """All of them, ``repeats`` times in turn."""
    served = pipeline.model(None)
    session = served.engine.classifiers[0]
    assert isinstance(session, Session)
    windows = pipeline.normalised_windows(song, max_duration_s=3600)
    with pipeline.decoder.open(song, sample_rate=served.card.audio.sample_rate, max_duration_s=3600) as decoding:
        blocks = list(decoding.blocks())
    costs: dict[str, list[Cost]] = {name: [] for name in (*_PARTS, "service")}
    for round_ in range(repeats + 1):
        now = {
            "decode_alone": decode_alone(song, served.card.audio.sample_rate),
            "session_alone": session_alone(session, windows),
            "features_alone": features_alone(served, blocks),
            "service": through_http(server, song),
        }
        if round_:  # the first warms up
            for name, cost in now.items():
                costs[name].append(cost)
    shares = {
        name: spread([part.cpu_s / whole.cpu_s for part, whole in zip(costs[name], costs["service"], strict=True)])
        for name in _PARTS
    }
    floors = [d.cpu_s + s.cpu_s for d, s in zip(costs["decode_alone"], costs["session_alone"], strict=True)]
    return {
        "song_seconds": SONG_SECONDS,
        "windows": len(windows),
        **{
            name: {f: spread([getattr(c, f) for c in all_]) for f in ("cpu_s", "wall_s")}
            for name, all_ in costs.items()
        },
        "cpu_share_of_service": shares,
        "cpu_ratio_to_floor": spread([c.cpu_s / floor for c, floor in zip(costs["service"], floors, strict=True)]),
    }


def main() -> None:
    """Run the benchmark."""
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        song = Path(folder) / "song.mp3"
        make_song(song)
        pipeline = build_pipeline(Settings(device=DeviceChoice.CPU))
        with running_server(Path(folder)) as server:
            print_report("track", measure(pipeline, server, song, options.repeats), record=options.record)
        pipeline.close()


if __name__ == "__main__":
    main()
