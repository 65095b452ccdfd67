"""Recognise a file by its first bytes, or guess from its name that it is a recording."""

from __future__ import annotations

import re
from pathlib import Path

AUDIO_SUFFIXES = frozenset(
    {".aac", ".aif", ".aifc", ".aiff", ".flac", ".m4a", ".mka", ".mp3", ".mp4", ".oga", ".ogg", ".opus", ".wav", ".w64"}
    | {".webm", ".wma"}
)
"""Suffixes of the files to look for in folders. A file that is named explicitly may have any suffix."""

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


def has_accepted_signature(path: Path) -> bool:
    """Return whether a file starts with the signature of an accepted container."""
    with path.open("rb") as file:
        return _SIGNATURES.match(file.read(16)) is not None


def is_archive(path: Path) -> bool:
    """Return whether a file is an archive or a document, which can contain an audio file."""
    with path.open("rb") as file:
        return _ARCHIVES.match(file.read(512)) is not None
