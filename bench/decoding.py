"""What decoding a 4-minute song costs, by format: ffmpeg as the service lets it run, and as the kernel would."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from bench.report import SONG_SECONDS, arguments, make_song, print_report, spread
from bench.track import decode_alone
from service.audio.ffmpeg import find_ffmpeg

_RATE = 22050
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
    options = parser.parse_args()
    formats = {}
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "source.wav"
        song = source.with_name("source.mp3")
        make_song(song)
        ffmpeg = [str(find_ffmpeg().path), "-v", "error", "-nostdin", "-y"]
        subprocess.run([*ffmpeg, "-i", str(song), "-c:a", "pcm_s16le", str(source)], check=True)
        for suffix, (encoder, *arguments_) in _ENCODERS.items():
            encoded = source.with_name(f"song.{suffix}")
            subprocess.run([*ffmpeg, "-i", str(source), "-c:a", encoder, *arguments_, str(encoded)], check=True)
            rounds = [
                (decode_alone(encoded, _RATE, settled=True), decode_alone(encoded, _RATE, settled=False))
                for _ in range(options.repeats)
            ]
            formats[suffix] = {
                "settled_cpu_s": spread([settled.cpu_s for settled, _ in rounds]),
                "unsettled_cpu_s": spread([unsettled.cpu_s for _, unsettled in rounds]),
                "cpu_ratio": spread([settled.cpu_s / unsettled.cpu_s for settled, unsettled in rounds]),
                "wall_ratio": spread([settled.wall_s / unsettled.wall_s for settled, unsettled in rounds]),
            }
    print_report("decoding", {"song_seconds": SONG_SECONDS, "formats": formats}, record=options.record)


if __name__ == "__main__":
    main()
