"""Properties of a file that ffmpeg does not report, read from its first and last bytes."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import BinaryIO

# The first bytes of every accepted container. ISO media files (mp4, m4a) have their signature at byte 4. An mp3 or ADTS
# stream starts with a tag or with the header of its first frame, of layer II or III.
_SIGNATURES = re.compile(
    rb"RIFF....WAVE|RF64....WAVE|riff\x2e\x91\xcf\x11|fLaC|OggS|ID3|APETAGEX|....ftyp|FORM....AIF[FC]"
    rb"|\x1a\x45\xdf\xa3|\x30\x26\xb2\x75\x8e\x66\xcf\x11|\xff[\xfa-\xfd\xf2-\xf5\xe2\xe3\xf0\xf1\xf8\xf9]",
    re.DOTALL,
)
# Archives and documents. One that contains an uncompressed mp3 looks like an mp3 preceded by junk. Requiring a file to
# start like an mp3 would not work instead, because a stream may be cut anywhere.
_ARCHIVES = re.compile(
    rb"PK\x03\x04|PK\x05\x06|7z\xbc\xaf\x27\x1c|Rar!|\x1f\x8b|BZh|\xfd7zXZ|%PDF|.{257}ustar", re.DOTALL
)
# A WAV has a handful of chunks. A file with more than this was crafted to keep the parser busy.
_MAX_WAV_CHUNKS = 1000
_UNKNOWN_SIZES = (0, 0xFFFFFFFF)
_MAX_OGG_PAGE_BYTES = 65_307
_OGG_HEADER_BYTES = 27


def has_accepted_signature(path: Path) -> bool:
    """Return whether a file starts with the signature of an accepted container."""
    with path.open("rb") as file:
        return _SIGNATURES.match(file.read(16)) is not None


def is_archive(path: Path) -> bool:
    """Return whether a file is an archive or a document, which can contain an audio file."""
    with path.open("rb") as file:
        return _ARCHIVES.match(file.read(512)) is not None


def is_truncated(path: Path) -> bool:
    """Return whether a WAV is shorter than its header states, or an Ogg stream has no end.

    ffmpeg computes the duration of these two from the data that is present. Other containers state a duration, which
    the caller can compare. The result is False for them, and for a WAV whose header does not state the size.
    """
    with path.open("rb") as file:
        magic = file.read(4)
        if magic == b"RIFF":
            return _is_truncated_wav(file)
        if magic == b"OggS":
            return _is_truncated_ogg(file)
    return False


def _is_truncated_wav(file: BinaryIO) -> bool:
    size = os.fstat(file.fileno()).st_size
    position = 12
    for _ in range(_MAX_WAV_CHUNKS):
        if position + 8 > size:
            break
        file.seek(position)
        header = file.read(8)
        length = int.from_bytes(header[4:], "little")
        if header[:4] == b"data":
            return length not in _UNKNOWN_SIZES and position + 8 + length > size
        position += 8 + length + length % 2
    return False


def _is_truncated_ogg(file: BinaryIO) -> bool:
    size = os.fstat(file.fileno()).st_size
    file.seek(max(0, size - _MAX_OGG_PAGE_BYTES))
    tail = file.read()
    position = tail.rfind(b"OggS")
    page = tail[position:] if position >= 0 else b""
    if len(page) < _OGG_HEADER_BYTES:
        return True
    segments = page[_OGG_HEADER_BYTES : _OGG_HEADER_BYTES + page[26]]
    is_complete = len(segments) == page[26] and len(page) >= _OGG_HEADER_BYTES + len(segments) + sum(segments)
    ends_the_stream = bool(page[5] & 4)
    return not (is_complete and ends_the_stream)
