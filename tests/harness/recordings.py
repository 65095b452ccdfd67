"""Making recordings of every kind for the tests: with pydub and ffmpeg, never stored."""

from __future__ import annotations

import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray
from pydub import AudioSegment

from tests.harness.server import descendants
from wholetrack.decoding.ffmpeg import Ffmpeg, find_ffmpeg


@dataclass(frozen=True, slots=True)
class Kind:
    """A container with a codec: suffix of the file, ffmpeg's muxer, encoder and extra arguments."""

    suffix: str
    muxer: str
    encoder: str
    arguments: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.muxer}-{self.encoder}"


LOSSLESS = (
    Kind("wav", "wav", "pcm_s16le"),
    Kind("wav", "wav", "pcm_s24le"),
    Kind("w64", "w64", "pcm_s16le"),
    Kind("aiff", "aiff", "pcm_s16be"),
    Kind("flac", "flac", "flac"),
    Kind("oga", "ogg", "flac"),
    Kind("m4a", "ipod", "alac"),
    Kind("mka", "matroska", "flac"),
)
LOSSY = (
    Kind("mp3", "mp3", "libmp3lame", ("-b:a", "192k")),
    Kind("ogg", "ogg", "libvorbis", ("-q:a", "6")),
    Kind("opus", "opus", "libopus", ("-b:a", "128k")),
    # The index of an mp4 is at its end unless asked otherwise: such a file cannot be read from a pipe.
    Kind("m4a", "ipod", "aac", ("-b:a", "192k")),
    Kind("aac", "adts", "aac", ("-b:a", "192k")),
    Kind("wma", "asf", "wmav2", ("-b:a", "192k")),
    Kind("webm", "webm", "libopus", ("-b:a", "128k")),
)


class Recorder:
    """Converts, cuts and makes recordings."""

    def __init__(self, ffmpeg: Ffmpeg) -> None:
        self.ffmpeg = ffmpeg
        AudioSegment.converter = str(ffmpeg.path)

    def load(self, path: Path, codec: str) -> AudioSegment:
        """A recording in pydub's hands: 16 bits, its own rate and channels."""
        return AudioSegment.from_file(path, codec=codec)

    def convert(self, segment: AudioSegment, kind: Kind, target: Path) -> Path:
        """Write a recording as another kind."""
        with segment.export(target, format=kind.muxer, codec=kind.encoder, parameters=list(kind.arguments)):
            return target

    def run(self, *arguments: str | Path) -> None:
        """Run ffmpeg with arguments of one's own."""
        self.output(*arguments)

    def picture(self, target: Path) -> None:
        """Write a PNG, whatever the name says."""
        self.run(
            *("-f", "lavfi", "-i", "color=red:s=64x64", "-frames:v", "1", "-update", "1"),
            *("-f", "image2", "-c:v", "png", target),
        )

    def output(self, *arguments: str | Path) -> bytes:
        """What ffmpeg writes to its standard output."""
        command = [str(self.ffmpeg.path), "-nostdin", "-v", "error", "-y", *map(str, arguments)]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def wav_bytes(samples: NDArray[np.float32], rate: int, *, stated_bytes: int | None = None) -> bytes:
    """A WAV of float samples, ``[n]`` or ``[n, channels]``, whose header may state any number of bytes."""
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    content = samples.astype("<f4").tobytes()
    stated = len(content) if stated_bytes is None else stated_bytes
    form = struct.pack("<HHIIHH", 3, channels, rate, rate * channels * 4, channels * 4, 32)
    riff = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", stated)
    return b"RIFF" + struct.pack("<I", len(riff) + stated) + riff + content


def make_long_recording(song: Path, target: Path, minutes: int) -> None:
    """Repeat the first minute of a song: frames of an mp3 can be concatenated without encoding them again."""
    minute = target.with_suffix(".minute.mp3")
    command = [str(find_ffmpeg().path), "-v", "error", "-nostdin", "-y", "-i", str(song), "-t", "60"]
    bare = ["-vn", "-ac", "1", "-ar", "22050", "-b:a", "48k", "-write_xing", "0", "-id3v2_version", "0"]
    subprocess.run([*command, *bare, str(minute)], check=True)
    with target.open("wb") as file:
        for _ in range(minutes):
            file.write(minute.read_bytes())


def ffmpegs() -> list[psutil.Process]:
    """The ffmpeg processes that this one started; a served process of another test is none."""
    return [child for child, name in descendants(psutil.Process()) if name.startswith("ffmpeg")]
