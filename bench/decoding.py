"""What decoding a 4-minute song costs, by format: ffmpeg as the service runs it, as the kernel would, and PyAV."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

from bench.environments import ENVIRONMENTS, environment
from bench.track import decode_alone
from tests.harness.report import SONG_SECONDS, arguments, make_song, print_report, spread
from tests.harness.server import PROJECT
from wholetrack.decoding.ffmpeg import find_ffmpeg

_RATE = 22050
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


def main() -> None:
    """Run the benchmark."""
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--environments", type=Path, default=ENVIRONMENTS)
    options = parser.parse_args()
    formats = {}
    python = environment(options.environments / "pyav", _PYAV) / "python"
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "source.wav"
        song = source.with_name("source.mp3")
        make_song(song)
        ffmpeg = [str(find_ffmpeg().path), "-v", "error", "-nostdin", "-y"]
        subprocess.run([*ffmpeg, "-i", str(song), "-c:a", "pcm_s16le", str(source)], check=True)
        for suffix, (encoder, *arguments_) in _ENCODERS.items():
            encoded = source.with_name(f"song.{suffix}")
            subprocess.run([*ffmpeg, "-i", str(source), "-c:a", encoder, *arguments_, str(encoded)], check=True)
            settled, unsettled, pyav = zip(*(_round(encoded, python) for _ in range(options.repeats)), strict=True)
            formats[suffix] = {
                "settled_cpu_s": spread(settled),
                "unsettled_cpu_s": spread(unsettled),
                "pyav_cpu_s": spread(pyav),
                "ratio_to_unsettled": spread([one / other for one, other in zip(settled, unsettled, strict=True)]),
                "ratio_to_pyav": spread([one / other for one, other in zip(settled, pyav, strict=True)]),
            }
    print_report("decoding", {"song_seconds": SONG_SECONDS, "formats": formats}, record=options.record)


def _round(encoded: Path, python: Path) -> tuple[float, float, float]:
    """CPU seconds of the command, settled and not, and of PyAV without its start."""
    settled = decode_alone(encoded, _RATE, settled=True).cpu_s
    unsettled = decode_alone(encoded, _RATE, settled=False).cpu_s
    command = [str(python), "-m", "bench.peers.with_pyav", str(_RATE), "1", str(encoded)]
    done = subprocess.run(command, cwd=PROJECT, check=True, capture_output=True)
    (pyav,) = json.loads(done.stdout)[str(encoded)]
    return settled, unsettled, pyav


if __name__ == "__main__":
    main()
