"""Good files of every container and codec that the service accepts: what mutations start from.

Made of arithmetic, the same bytes every time for one version of ffmpeg; beside them, where the real music is, the
beginnings of its recordings.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.harness.recordings import Kind, Recorder, wav_bytes
from tests.harness.server import PROJECT

SECONDS = 6
_RATE = 22050
_REAL_BYTES = 200_000
_REAL = ("*.flac", "*.mp3", "*.ogg")


@dataclass(frozen=True, slots=True)
class Origin:
    """A good file.

    Attributes:
        name: that says what it is.
        suffix: of its container, without a dot.
        content: its bytes.
    """

    name: str
    suffix: str
    content: bytes


@dataclass(frozen=True, slots=True)
class _Recording:
    """How one file is made: its kind, sample rate in Hz and channels."""

    kind: Kind
    rate: int
    channels: int

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.rate}-{self.channels}{''.join(self.kind.arguments[:2]).replace(':', '')}"


# Uncompressed ones at low rates: their bytes are all alike, and many of them only take time to send.
_RECORDINGS = (
    _Recording(Kind("wav", "wav", "pcm_u8"), 11025, 1),
    _Recording(Kind("wav", "wav", "pcm_s16le"), 22050, 2),
    _Recording(Kind("wav", "wav", "pcm_s24le"), 16000, 2),
    _Recording(Kind("wav", "wav", "pcm_f32le"), 22050, 1),
    _Recording(Kind("wav", "wav", "pcm_mulaw"), 8000, 1),
    _Recording(Kind("wav", "wav", "adpcm_ms"), 22050, 2),
    _Recording(Kind("wav", "wav", "adpcm_ima_wav"), 22050, 1),
    _Recording(Kind("wav", "wav", "pcm_s16le"), 16000, 6),
    _Recording(Kind("wav", "wav", "pcm_s16le", ("-rf64", "always")), 16000, 1),
    _Recording(Kind("w64", "w64", "pcm_s16le"), 16000, 2),
    _Recording(Kind("flac", "flac", "flac"), 44100, 2),
    _Recording(Kind("flac", "flac", "flac"), 16000, 1),
    _Recording(Kind("mp3", "mp3", "libmp3lame", ("-b:a", "192k")), 44100, 2),
    _Recording(Kind("mp3", "mp3", "libmp3lame", ("-q:a", "5")), 22050, 1),
    _Recording(Kind("mp3", "mp2", "mp2"), 48000, 2),
    _Recording(Kind("ogg", "ogg", "libvorbis"), 44100, 2),
    _Recording(Kind("ogg", "ogg", "libvorbis"), 22050, 1),
    _Recording(Kind("opus", "opus", "libopus"), 48000, 2),
    _Recording(Kind("opus", "opus", "libopus"), 48000, 6),
    _Recording(Kind("oga", "ogg", "flac"), 22050, 2),
    _Recording(Kind("m4a", "ipod", "aac"), 44100, 2),
    _Recording(Kind("m4a", "ipod", "aac"), 16000, 1),
    _Recording(Kind("m4a", "ipod", "alac"), 44100, 2),
    _Recording(Kind("mp4", "mp4", "aac", ("-movflags", "+faststart")), 48000, 2),
    _Recording(Kind("mp4", "mp4", "aac", ("-movflags", "+frag_keyframe+empty_moov")), 22050, 1),
    _Recording(Kind("aac", "adts", "aac"), 44100, 2),
    _Recording(Kind("aac", "adts", "aac"), 8000, 1),
    _Recording(Kind("aiff", "aiff", "pcm_s16be"), 22050, 2),
    _Recording(Kind("aiff", "aiff", "pcm_f32be"), 16000, 1),
    _Recording(Kind("wma", "asf", "wmav2"), 44100, 2),
    _Recording(Kind("wma", "asf", "wmav1"), 22050, 1),
    _Recording(Kind("webm", "webm", "libopus"), 48000, 2),
    _Recording(Kind("webm", "webm", "libvorbis"), 44100, 1),
    _Recording(Kind("mka", "matroska", "flac"), 22050, 2),
    _Recording(Kind("mka", "matroska", "aac"), 44100, 1),
)
# ffmpeg prints the name of a tag as it is, and the service reads what ffmpeg prints.
_LONG_NAME = "A name of a tag " * 50
# Without dates, names of encoders and random serial numbers.
_SAME_EVERY_TIME = ("-fflags", "+bitexact", "-flags:a", "+bitexact")


def corpus(recorder: Recorder, folder: Path) -> tuple[Origin, ...]:
    """All good files.

    Args:
        recorder: that makes them.
        folder: an empty one, to make them in.
    """
    return (*made(recorder, folder), *real())


def made(recorder: Recorder, folder: Path) -> Iterator[Origin]:
    """The files made of arithmetic, six seconds each."""
    wav, picture = folder / "tune.wav", folder / "cover.png"
    wav.write_bytes(wav_bytes(tune(), _RATE))
    recorder.picture(picture)
    for recording in _RECORDINGS:
        kind, target = recording.kind, folder / f"made.{recording.kind.suffix}"
        shape = ("-ar", str(recording.rate), "-ac", str(recording.channels))
        encoding = ("-c:a", kind.encoder, *kind.arguments, *shape, *_SAME_EVERY_TIME)
        recorder.run("-i", wav, *encoding, "-f", kind.muxer, target)
        yield Origin(recording.name, kind.suffix, target.read_bytes())
    tags = ("-metadata", "title=A tune", "-metadata", f"{_LONG_NAME}=A value")
    for suffix in ("mp3", "flac", "ogg", "mka"):
        tagged = folder / f"tagged.{suffix}"
        recorder.run("-i", wav, *tags, *_SAME_EVERY_TIME, tagged)
        yield Origin(f"{suffix}-with-tags", suffix, tagged.read_bytes())
    covered = folder / "covered.mp3"
    recorder.run(
        *("-i", wav, "-i", picture, "-map", "0", "-map", "1", "-disposition:v", "attached_pic"),
        *("-metadata", "title=A tune", "-metadata", "artist=Nobody", "-write_id3v1", "1", *_SAME_EVERY_TIME, covered),
    )
    yield Origin("mp3-with-id3-and-cover", "mp3", covered.read_bytes())
    film = folder / "film.mp4"
    recorder.run(
        *("-f", "lavfi", "-i", f"testsrc=d={SECONDS}:s=64x64:r=5", "-i", wav, "-map", "0", "-map", "1"),
        *("-c:v", "mpeg4", "-flags:v", "+bitexact", *_SAME_EVERY_TIME, film),
    )
    yield Origin("film", "mp4", film.read_bytes())


def real() -> Iterator[Origin]:
    """The first 200 kB of every real recording, where there are any."""
    shared = Path(os.environ.get("WHOLETRACK_SHARED", PROJECT.parent / "shared"))
    folder = shared / "data" / "audio"
    for path in sorted(path for pattern in _REAL for path in folder.rglob(pattern)):
        with path.open("rb") as file:
            yield Origin(path.stem, path.suffix[1:], file.read(_REAL_BYTES))


def fingerprint(origins: Sequence[Origin]) -> str:
    """Of a corpus, in hexadecimal: two numbers make the same mutant where this is the same."""
    digest = hashlib.sha256()
    for origin in origins:
        digest.update(origin.name.encode() + b"\0" + hashlib.sha256(origin.content).digest())
    return digest.hexdigest()[:16]


def tune() -> NDArray[np.float32]:
    """Six seconds at 22,050 Hz with pitch, rhythm and noise, ``[n]``."""
    time = np.arange(SECONDS * _RATE) / _RATE
    melody = np.sin(2 * np.pi * 220 * 2 ** (np.floor(time * 3) % 5 / 6) * time)
    beat = np.exp(-((time * 2) % 1) * 25) * np.random.default_rng(1).standard_normal(len(time))
    return (0.2 * melody + 0.15 * beat).astype(np.float32)
