"""The recording that most benchmarks use."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.harness.paths import SHARED
from wholetrack.decoding.ffmpeg import find_ffmpeg

SONG_SECONDS = 240


def make_song(target: Path) -> None:
    """Write four minutes of stereo mp3 at 192 kb/s: real music if it is available, otherwise tones and noise."""
    music = SHARED / "data" / "audio" / "full" / "on-the-run.ogg"
    source = ["-i", str(music)]
    if not music.exists():
        noise = ["-f", "lavfi", "-i", "anoisesrc=c=pink:a=0.3:r=44100"]
        tone = ["-f", "lavfi", "-i", "sine=f=330:r=44100"]
        source = [*noise, *tone, "-filter_complex", "amix,tremolo=f=2,aformat=channel_layouts=stereo"]
    command = [str(find_ffmpeg().path), "-v", "error", "-nostdin", "-y", *source]
    subprocess.run([*command, "-t", str(SONG_SECONDS), "-b:a", "192k", str(target)], check=True)
