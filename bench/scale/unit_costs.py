"""Cost of each stage for an hour of audio: CPU time of decoding, features and network, and bytes that are moved.

All parts are measured in turn, round after round, so that their ratios are not affected by changes in the speed of the
machine.
"""

from __future__ import annotations

import csv
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.records import benchmark_parser
from bench.song import SONG_SECONDS, make_song
from bench.spread import spread
from bench.track import decode_alone, features_alone, over_http, session_alone
from tests.harness.paths import SHARED
from tests.harness.records import print_record
from tests.harness.server import running_server
from wholetrack.decoding.ffmpeg import find_ffmpeg
from wholetrack.inference.session import Session
from wholetrack.served_model import ServedModel
from wholetrack.settings import DeviceChoice, Settings
from wholetrack.startup import build_pipeline

_MAX_DURATION_S = 3600
_PER_HOUR = 3600 / SONG_SECONDS
_QUANTILES = 20
_FLOAT32_BYTES = 4

CODECS = {
    "mp3": ("-c:a", "libmp3lame", "-b:a", "192k", "-f", "mp3"),
    "aac": ("-c:a", "aac", "-b:a", "192k", "-f", "ipod"),
    "vorbis": ("-c:a", "libvorbis", "-q:a", "6", "-f", "ogg"),
    "opus": ("-c:a", "libopus", "-b:a", "128k", "-f", "ogg"),
    "flac": ("-c:a", "flac", "-sample_fmt", "s16", "-f", "flac"),
}
"""How recordings are encoded."""

MODELS = ("wholetrack-crnn", "wholetrack-crnn-gtzan")
"""The default model, and the one whose network was measured on a GPU."""


def encoded(song: Path) -> dict[str, Path]:
    """Encode a recording in every way, and return the files."""
    files = {}
    for codec, options in CODECS.items():
        files[codec] = song.with_name(f"encoded.{codec}")
        command = [str(find_ffmpeg().path), "-v", "error", "-nostdin", "-y", "-i", str(song), "-map", "0:a:0"]
        subprocess.run([*command, *options, str(files[codec])], check=True)
    return files


def session_of(served: ServedModel) -> Session:
    """Return the session of a model on the CPU."""
    session = served.engine.classifiers[0]
    assert isinstance(session, Session)
    return session


def bytes_per_window(served: ServedModel) -> dict[str, int]:
    """Return the size of the inputs of a network for a window, and that of its outputs."""
    sizes = {"inputs": served.features.shapes, "outputs": served.card.output_shapes}
    return {name: sum(_FLOAT32_BYTES * int(np.prod(shape)) for shape in shapes) for name, shapes in sizes.items()}


def durations_s() -> list[float]:
    """Return quantiles of the durations of real recordings, from the shortest to the longest; none without the data."""
    table = SHARED / "data" / "free-music.csv"
    if not table.exists():
        return []
    with table.open(newline="") as file:
        durations = [float(row["duration_s"]) for row in csv.DictReader(file)]
    return [round(float(value), 1) for value in np.quantile(durations, np.linspace(0, 1, _QUANTILES + 1))]


def _per_hour(values: Sequence[float]) -> dict[str, Any]:
    return spread([value * _PER_HOUR for value in values])


def main() -> None:
    """Run the benchmark."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="number of measurements")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        song = Path(name, "song.mp3")
        make_song(song)
        files = encoded(song)
        pipeline = build_pipeline(Settings(device=DeviceChoice.CPU))
        served = {model: pipeline.model(model) for model in MODELS}
        rate = served[MODELS[0]].card.audio.sample_rate
        with pipeline.decoder.open(song, sample_rate=rate, max_duration_s=_MAX_DURATION_S) as decoding:
            blocks = list(decoding.blocks())
        windows = {
            model: pipeline.normalised_windows(song, model=model, max_duration_s=_MAX_DURATION_S) for model in MODELS
        }
        costs: dict[str, list[float]] = {}
        with running_server(Path(name), cache_mb=0) as server:
            # The first round warms up.
            for _ in range(options.repeats + 1):
                for codec, file in files.items():
                    costs.setdefault(f"decode {codec}", []).append(decode_alone(file, rate).cpu_s)
                for model in MODELS:
                    costs.setdefault(f"features {model}", []).append(features_alone(served[model], blocks).cpu_s)
                    network = session_alone(session_of(served[model]), windows[model])
                    costs.setdefault(f"network {model}", []).append(network.cpu_s)
                costs.setdefault("service", []).append(over_http(server, song).cpu_s)
        figures = {
            "cpu_s_per_hour": {stage: _per_hour(measured[1:]) for stage, measured in costs.items()},
            "windows_per_hour": round(len(windows[MODELS[0]]) * _PER_HOUR),
            "file_mb_per_hour": {
                codec: round(file.stat().st_size * _PER_HOUR / 1e6, 1) for codec, file in files.items()
            },
            "bytes_per_window": {model: bytes_per_window(served[model]) for model in MODELS},
            "durations_s": durations_s(),
        }
        pipeline.close()
    print_record("unit_costs", figures, folder=options.record)


if __name__ == "__main__":
    main()
