"""CPU time to decode a 4-minute song, by format.

Compares ffmpeg as the service runs it, ffmpeg as the kernel schedules it by default, and PyAV.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from bench.environments import ENVIRONMENTS, environment
from bench.records import benchmark_parser
from bench.song import SONG_SECONDS, make_song
from bench.spread import spread
from bench.track import decode_alone
from tests.harness.paths import PROJECT
from tests.harness.records import print_record
from wholetrack.decoding.ffmpeg import find_ffmpeg

_RATE_HZ = 22050
_PYAV = "av==18.1.0"
_ENCODERS = {
    "wav": ("pcm_s16le",),
    "flac": ("flac",),
    "mp3": ("libmp3lame", "-b:a", "192k"),
    "ogg": ("libvorbis", "-q:a", "6"),
    "opus": ("libopus", "-b:a", "128k"),
    "m4a": ("aac", "-b:a", "192k"),
    "wma": ("wmav2", "-b:a", "192k"),
}


def measure(song: Path, python: Path, repeats: int) -> dict[str, Any]:
    """Decode a song in all three ways in turn, and return the CPU times and their ratios.

    Args:
        song: The encoded song.
        python: The interpreter of an environment with PyAV.
        repeats: Number of measurements.
    """
    rounds = [
        (
            decode_alone(song, _RATE_HZ, service_scheduling=True).cpu_s,
            decode_alone(song, _RATE_HZ, service_scheduling=False).cpu_s,
            _pyav_cpu_s(song, python),
        )
        for _ in range(repeats)
    ]
    service, default, pyav = zip(*rounds, strict=True)
    return {
        "service_scheduling_cpu_s": spread(service),
        "default_scheduling_cpu_s": spread(default),
        "pyav_cpu_s": spread(pyav),
        "ratio_to_default_scheduling": spread([one / other for one, other in zip(service, default, strict=True)]),
        "ratio_to_pyav": spread([one / other for one, other in zip(service, pyav, strict=True)]),
    }


def _pyav_cpu_s(song: Path, python: Path) -> float:
    """Return the CPU time of PyAV without the start of its process."""
    command = [str(python), "-m", "bench.peers.with_pyav", str(_RATE_HZ), "1", str(song)]
    done = subprocess.run(command, cwd=PROJECT, check=True, capture_output=True)
    (cpu_s,) = json.loads(done.stdout)[str(song)]
    return float(cpu_s)


def main() -> None:
    """Run the benchmark."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="number of measurements")
    parser.add_argument("--environments", type=Path, default=ENVIRONMENTS, help="folder for virtual environments")
    options = parser.parse_args()
    python = environment(options.environments / "pyav", _PYAV) / "python"
    formats = {}
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "source.mp3"
        wav = source.with_suffix(".wav")
        make_song(source)
        ffmpeg = [str(find_ffmpeg().path), "-v", "error", "-nostdin", "-y"]
        subprocess.run([*ffmpeg, "-i", str(source), "-c:a", "pcm_s16le", str(wav)], check=True)
        for suffix, encoder in _ENCODERS.items():
            song = source.with_name(f"song.{suffix}")
            subprocess.run([*ffmpeg, "-i", str(wav), "-c:a", *encoder, str(song)], check=True)
            formats[suffix] = measure(song, python, options.repeats)
    print_record("decoding", {"song_seconds": SONG_SECONDS, "formats": formats}, folder=options.record)


if __name__ == "__main__":
    main()
