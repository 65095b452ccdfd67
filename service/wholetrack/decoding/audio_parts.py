"""Find out which bytes of a file ffmpeg should decode.

Usually that is the whole file. This module deals with files that ffmpeg decodes incompletely or with spurious errors:

* Tags before, after and between the audio of an mp3 or FLAC file are skipped.
* The links of a chained Ogg file are decoded one by one. ffmpeg 9 stops at the first link with other channels or
  another sample rate, and decodes links of another quality to noise.
* Headers of WAV files that ffmpeg misinterprets are corrected with options.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from wholetrack.decoding.ogg import read_ogg
from wholetrack.decoding.tags import leading_tags_end, tag_ranges
from wholetrack.decoding.wav import read_w64, read_wav
from wholetrack.errors import ErrorKind, ServiceError

# ffmpeg opens every range at the same time, and the sandbox limits the number of descriptors.
_MAX_RANGES = 12
_NOT_TAGGED_AT_THE_END = (b"RIFF", b"RF64", b"BW64", b"FORM", b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75")


@dataclass(frozen=True, slots=True)
class AudioPart:
    """Bytes of a file that one ffmpeg process decodes.

    Attributes:
        ranges: Offsets of the first byte and behind the last one, for each range. Empty for the whole file.
        options: Input options for ffmpeg.
    """

    ranges: tuple[tuple[int, int], ...] = ()
    options: tuple[str, ...] = ()

    def url(self, descriptor: int) -> str:
        """Return a URL for ffmpeg that refers to these bytes of the file with this descriptor."""
        file = f"file:/dev/fd/{descriptor}"
        urls = [f"subfile,,start,{start},end,{end},,:{file}" for start, end in self.ranges]
        if not urls:
            return file
        return urls[0] if len(urls) == 1 else f"concat:{'|'.join(urls)}"


@dataclass(frozen=True, slots=True)
class AudioParts:
    """What to decode of a file.

    Attributes:
        parts: The parts in order.
        is_truncated: Whether the file is shorter than its structure requires; None if only the duration that ffmpeg
            reads from its header can tell.
    """

    parts: tuple[AudioPart, ...]
    is_truncated: bool | None = None


def find_audio_parts(path: Path) -> AudioParts:
    """Inspect a file and return what to decode of it.

    Raises:
        ServiceError: ``unsupported_media`` if ffmpeg would decode the file to noise.
        OSError: If the file cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = leading_tags_end(file)
        file.seek(start)
        magic = file.read(12)
        if magic[:4] == b"OggS":
            return _ogg_parts(file, start, size)
        if magic[:4] in (b"RIFF", b"RF64", b"BW64") and magic[8:12] == b"WAVE":
            wav = read_wav(file, start, size)
            return AudioParts((AudioPart(_from(start, size), wav.options),), wav.is_truncated)
        if magic[:4] == b"riff":
            return AudioParts((AudioPart(_from(start, size)),), read_w64(file, start, size))
        if magic[:4] == b"RIFX":
            raise ServiceError(
                ErrorKind.UNSUPPORTED_MEDIA,
                "The file is a big-endian WAV (RIFX), which is not supported. Convert it to wav, flac or aiff.",
            )
        if magic[:4] in _NOT_TAGGED_AT_THE_END or magic[4:8] == b"ftyp":
            return AudioParts((AudioPart(_from(start, size)),))
        is_mp3 = magic[:4] != b"fLaC"
        # ffmpeg reads the tags at the beginning of an mp3, and recognises the format by them.
        begin = 0 if is_mp3 else start
        return AudioParts(_without(tag_ranges(file, start, size, search_inside=is_mp3), begin, size))


def _from(start: int, size: int) -> tuple[tuple[int, int], ...]:
    return ((start, size),) if start else ()


def _ogg_parts(file: BinaryIO, start: int, size: int) -> AudioParts:
    ogg = read_ogg(file, start, size)
    if len(ogg.links) == 1 and ogg.links[0] == (0, size):
        return AudioParts((AudioPart(),), ogg.is_truncated)
    return AudioParts(tuple(AudioPart((link,)) for link in ogg.links), ogg.is_truncated)


def _without(tags: Sequence[tuple[int, int]], begin: int, size: int) -> tuple[AudioPart, ...]:
    """Return the parts of a file from ``begin`` that are not tags."""
    if not tags:
        return (AudioPart(_from(begin, size)),)
    starts = [begin, *(end for _, end in tags)]
    ends = [*(start for start, _ in tags), size]
    ranges = [(start, end) for start, end in zip(starts, ends, strict=True) if start < end]
    return tuple(AudioPart(tuple(ranges[i : i + _MAX_RANGES])) for i in range(0, len(ranges), _MAX_RANGES))
