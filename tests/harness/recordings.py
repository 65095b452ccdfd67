"""Test recordings in every container and codec. They are generated with pydub and ffmpeg and never stored."""

from __future__ import annotations

import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydub import AudioSegment

from wholetrack.decoding.ffmpeg import Ffmpeg, find_ffmpeg

TUNE_RATE_HZ = 22050


@dataclass(frozen=True, slots=True)
class Kind:
    """A container and a codec.

    Attributes:
        suffix: File suffix, without a dot.
        muxer: ffmpeg's name for the container.
        encoder: ffmpeg's name for the encoder.
        arguments: Further arguments for the encoder or muxer.
    """

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
    # By default the index of an mp4 is at its end, so such a file cannot be read from a pipe.
    Kind("m4a", "ipod", "aac", ("-b:a", "192k")),
    Kind("aac", "adts", "aac", ("-b:a", "192k")),
    Kind("wma", "asf", "wmav2", ("-b:a", "192k")),
    Kind("webm", "webm", "libopus", ("-b:a", "128k")),
)


class Recorder:
    """Creates, converts and cuts recordings with one ffmpeg."""

    def __init__(self, ffmpeg: Ffmpeg) -> None:
        self.ffmpeg = ffmpeg
        AudioSegment.converter = str(ffmpeg.path)

    def load(self, path: Path, codec: str) -> AudioSegment:
        """Load a recording with pydub: 16 bits, at its own sample rate and with its own channels."""
        return AudioSegment.from_file(path, codec=codec)

    def convert(self, segment: AudioSegment, kind: Kind, target: Path) -> Path:
        """Write a segment to a file of this kind."""
        with segment.export(target, format=kind.muxer, codec=kind.encoder, parameters=list(kind.arguments)):
            return target

    def run(self, *arguments: str | Path) -> None:
        """Run ffmpeg with these arguments."""
        self.output(*arguments)

    def picture(self, target: Path) -> None:
        """Write a PNG, whatever the suffix of the file name."""
        self.run(
            *("-f", "lavfi", "-i", "color=red:s=64x64", "-frames:v", "1", "-update", "1"),
            *("-f", "image2", "-c:v", "png", target),
        )

    def output(self, *arguments: str | Path) -> bytes:
        """Run ffmpeg with these arguments and return its standard output."""
        command = [str(self.ffmpeg.path), "-nostdin", "-v", "error", "-y", *map(str, arguments)]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def generate_tune(seconds: int) -> NDArray[np.float32]:
    """Return samples with pitch, rhythm and noise at 22,050 Hz, ``[n]``, the same every time."""
    time = np.arange(seconds * TUNE_RATE_HZ) / TUNE_RATE_HZ
    melody = np.sin(2 * np.pi * 220 * 2 ** (np.floor(time * 3) % 5 / 6) * time)
    beat = np.exp(-((time * 2) % 1) * 25) * np.random.default_rng(1).standard_normal(len(time))
    return (0.2 * melody + 0.15 * beat).astype(np.float32)


def wav_bytes(samples: NDArray[np.float32], rate: int, *, stated_bytes: int | None = None) -> bytes:
    """Return a WAV file with float samples.

    Args:
        samples: ``[n]`` or ``[n, channels]``.
        rate: Sample rate in Hz.
        stated_bytes: Size of the samples according to the header, if it is to differ from the actual size.
    """
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    content = samples.astype("<f4").tobytes()
    stated = len(content) if stated_bytes is None else stated_bytes
    fmt = struct.pack("<HHIIHH", 3, channels, rate, rate * channels * 4, channels * 4, 32)
    riff = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", stated)
    return b"RIFF" + struct.pack("<I", len(riff) + stated) + riff + content


def make_long_recording(song: Path, target: Path, minutes: int) -> None:
    """Write an mp3 that repeats the first minute of a song.

    Frames of an mp3 can be concatenated without encoding them again.
    """
    minute = target.with_suffix(".minute.mp3")
    command = [str(find_ffmpeg().path), "-v", "error", "-nostdin", "-y", "-i", str(song), "-t", "60"]
    frames_only = ["-vn", "-ac", "1", "-ar", "22050", "-b:a", "48k", "-write_xing", "0", "-id3v2_version", "0"]
    subprocess.run([*command, *frames_only, str(minute)], check=True)
    with target.open("wb") as file:
        for _ in range(minutes):
            file.write(minute.read_bytes())
