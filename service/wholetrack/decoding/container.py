"""What an accepted container says about itself in its first and last bytes, where ffmpeg does not tell."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import BinaryIO

# The first bytes of every accepted container; ISO media (mp4, m4a) have their mark at byte 4. An mp3 or ADTS stream
# starts with a tag or with the header of its first frame, of layer II or III.
_SIGNATURES = re.compile(
    rb"RIFF....WAVE|RF64....WAVE|riff\x2e\x91\xcf\x11|fLaC|OggS|ID3|APETAGEX|....ftyp|FORM....AIF[FC]"
    rb"|\x1a\x45\xdf\xa3|\x30\x26\xb2\x75\x8e\x66\xcf\x11|\xff[\xfa-\xfd\xf2-\xf5\xe2\xe3\xf0\xf1\xf8\xf9]",
    re.DOTALL,
)
# Files that hold other files. One that holds an mp3 uncompressed looks like an mp3 with rubbish before it, and mp3 has
# no beginning that could be asked for: a stream may be cut anywhere.
_WRAPPERS = re.compile(
    rb"PK\x03\x04|PK\x05\x06|7z\xbc\xaf\x27\x1c|Rar!|\x1f\x8b|BZh|\xfd7zXZ|%PDF|.{257}ustar", re.DOTALL
)
# A WAV has a handful of parts; a file that has more was made to be read for ever.
_MOST_PARTS = 1000
_UNKNOWN_SIZES = (0, 0xFFFFFFFF)
_LARGEST_OGG_PAGE = 65_307
_OGG_HEADER = 27


def has_accepted_signature(path: Path) -> bool:
    """Whether a file starts like one of the accepted containers, whatever follows."""
    with path.open("rb") as file:
        return _SIGNATURES.match(file.read(16)) is not None


def is_wrapper(path: Path) -> bool:
    """Whether a file is an archive or a document, whatever else can be found inside."""
    with path.open("rb") as file:
        return _WRAPPERS.match(file.read(512)) is not None


def breaks_off(path: Path) -> bool:
    """Whether a WAV holds less than its header promises, or an Ogg stream lacks its end.

    Other containers state a duration, which the decoder compares; these two do not (a WAV's is computed from what is
    there). False for a file of any other kind, and for one whose writer left the size open.
    """
    with path.open("rb") as file:
        magic = file.read(4)
        if magic == b"RIFF":
            return _wav_breaks_off(file)
        if magic == b"OggS":
            return _ogg_breaks_off(file)
    return False


def _wav_breaks_off(file: BinaryIO) -> bool:
    size = os.fstat(file.fileno()).st_size
    at = 12
    for _ in range(_MOST_PARTS):
        if at + 8 > size:
            break
        file.seek(at)
        header = file.read(8)
        length = int.from_bytes(header[4:], "little")
        if header[:4] == b"data":
            return length not in _UNKNOWN_SIZES and at + 8 + length > size
        at += 8 + length + length % 2
    return False


def _ogg_breaks_off(file: BinaryIO) -> bool:
    size = os.fstat(file.fileno()).st_size
    file.seek(max(0, size - _LARGEST_OGG_PAGE))
    tail = file.read()
    at = tail.rfind(b"OggS")
    page = tail[at:] if at >= 0 else b""
    if len(page) < _OGG_HEADER:
        return True
    table = page[_OGG_HEADER : _OGG_HEADER + page[26]]
    is_whole = len(table) == page[26] and len(page) >= _OGG_HEADER + len(table) + sum(table)
    ends_the_stream = bool(page[5] & 4)
    return not (is_whole and ends_the_stream)
