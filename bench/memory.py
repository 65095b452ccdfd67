"""How much memory a recording takes: the service's peak for 3 minutes and for 10 hours of the same music."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from bench.report import arguments, make_song, print_report
from bench.running import running_server
from service.audio.ffmpeg import find_ffmpeg

_MIB = 1 << 20


def make_recording(song: Path, target: Path, minutes: int) -> None:
    """The song's first minute over and over: frames of an mp3 can be joined without encoding them anew."""
    minute = target.with_suffix(".minute.mp3")
    command = [str(find_ffmpeg().path), "-v", "error", "-nostdin", "-y", "-i", str(song), "-t", "60"]
    bare = ["-vn", "-ac", "1", "-ar", "22050", "-b:a", "48k", "-write_xing", "0", "-id3v2_version", "0"]
    subprocess.run([*command, *bare, str(minute)], check=True)
    with target.open("wb") as file:
        for _ in range(minutes):
            file.write(minute.read_bytes())


def peak_bytes(recording: Path, folder: Path) -> dict[str, float]:
    """The largest resident size of a fresh service that answers one recording."""
    folder.mkdir()
    limits = {"max_duration_s": 40_000, "request_timeout_s": 3600}
    with running_server(folder, **limits) as server:
        ready = server.process.memory_info().rss
        response = server.post(recording, windows="none", timeout_s=3600)
        response.raise_for_status()
        peak = server.peak_bytes()
    return {
        "seconds": response.json()["track"]["duration_s"],
        "windows": response.json()["windows"]["count"],
        "ready_mib": round(ready / _MIB, 1),
        "peak_mib": round(peak / _MIB, 1),
    }


def main() -> None:
    """Run the benchmark."""
    parser = arguments(__doc__)
    parser.add_argument("--hours", type=float, default=10.0, help="of the long recording")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        song, short, long = folder / "song.mp3", folder / "short.mp3", folder / "long.mp3"
        make_song(song)
        make_recording(song, short, 3)
        make_recording(song, long, round(options.hours * 60))
        figures = {"short": peak_bytes(short, folder / "a"), "long": peak_bytes(long, folder / "b")}
        difference = figures["long"]["peak_mib"] - figures["short"]["peak_mib"]
        print_report("memory", {**figures, "difference_mib": round(difference, 1)}, record=options.record)


if __name__ == "__main__":
    main()
