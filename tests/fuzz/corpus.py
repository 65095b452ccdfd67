"""Valid files in every container and codec that the service accepts, for mutations to start from.

They are generated, with the same bytes every time for one version of ffmpeg. Where the real recordings are available,
the beginning of each is added.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.harness.paths import SHARED
from tests.harness.recordings import TUNE_RATE_HZ, Kind, Recorder, generate_tune, wav_bytes

SECONDS = 6
_REAL_BYTES = 200_000
_REAL_PATTERNS = ("*.flac", "*.mp3", "*.ogg")


@dataclass(frozen=True, slots=True)
class Origin:
    """A valid file.

    Attributes:
        name: Describes the file.
        suffix: Suffix of its container, without a dot.
        content: Its bytes.
    """

    name: str
    suffix: str
    content: bytes


@dataclass(frozen=True, slots=True)
class _Recording:
    """How to generate one file: its kind, its sample rate in Hz and its number of channels."""

    kind: Kind
    rate: int
    channels: int

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.rate}-{self.channels}{''.join(self.kind.arguments[:2]).replace(':', '')}"


# Uncompressed recordings have low sample rates: more bytes would take longer to send without any new structure.
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
# ffmpeg writes the names of tags to its log unchanged, and the service reads that log.
_LONG_NAME = "A name of a tag " * 50
# Omits dates, names of encoders and random serial numbers.
_REPRODUCIBLE = ("-fflags", "+bitexact", "-flags:a", "+bitexact")


def corpus(recorder: Recorder, folder: Path) -> tuple[Origin, ...]:
    """Return all valid files.

    Args:
        recorder: Generates the files.
        folder: An empty folder for temporary files.
    """
    return (*generated(recorder, folder), *real())


def generated(recorder: Recorder, folder: Path) -> Iterator[Origin]:
    """Yield the generated files, six seconds each."""
    wav, picture = folder / "tune.wav", folder / "cover.png"
    wav.write_bytes(wav_bytes(generate_tune(SECONDS), TUNE_RATE_HZ))
    recorder.picture(picture)
    for recording in _RECORDINGS:
        kind, target = recording.kind, folder / f"made.{recording.kind.suffix}"
        shape = ("-ar", str(recording.rate), "-ac", str(recording.channels))
        encoding = ("-c:a", kind.encoder, *kind.arguments, *shape, *_REPRODUCIBLE)
        recorder.run("-i", wav, *encoding, "-f", kind.muxer, target)
        yield Origin(recording.name, kind.suffix, target.read_bytes())
    tags = ("-metadata", "title=A tune", "-metadata", f"{_LONG_NAME}=A value")
    for suffix in ("mp3", "flac", "ogg", "mka"):
        tagged = folder / f"tagged.{suffix}"
        recorder.run("-i", wav, *tags, *_REPRODUCIBLE, tagged)
        yield Origin(f"{suffix}-with-tags", suffix, tagged.read_bytes())
    covered = folder / "covered.mp3"
    recorder.run(
        *("-i", wav, "-i", picture, "-map", "0", "-map", "1", "-disposition:v", "attached_pic"),
        *("-metadata", "title=A tune", "-metadata", "artist=Nobody", "-write_id3v1", "1", *_REPRODUCIBLE, covered),
    )
    yield Origin("mp3-with-id3-and-cover", "mp3", covered.read_bytes())
    film = folder / "film.mp4"
    recorder.run(
        *("-f", "lavfi", "-i", f"testsrc=d={SECONDS}:s=64x64:r=5", "-i", wav, "-map", "0", "-map", "1"),
        *("-c:v", "mpeg4", "-flags:v", "+bitexact", *_REPRODUCIBLE, film),
    )
    yield Origin("film", "mp4", film.read_bytes())


def real() -> Iterator[Origin]:
    """Yield the first 200 kB of every real recording, if they are available."""
    folder = SHARED / "data" / "audio"
    for path in sorted(path for pattern in _REAL_PATTERNS for path in folder.rglob(pattern)):
        with path.open("rb") as file:
            yield Origin(path.stem, path.suffix[1:], file.read(_REAL_BYTES))


def fingerprint(origins: Sequence[Origin]) -> str:
    """Return a hexadecimal digest of a corpus; the same seed and number make the same mutant if it is the same."""
    digest = hashlib.sha256()
    for origin in origins:
        digest.update(origin.name.encode() + b"\0" + hashlib.sha256(origin.content).digest())
    return digest.hexdigest()[:16]
