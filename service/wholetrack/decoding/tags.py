"""Find the tags of mp3 and FLAC files, which ffmpeg would otherwise try to decode.

Players have written tags of several kinds before, after and, where files were joined, between the audio: ID3v1 [1]_,
ID3v2 [2]_, APEv2 [3]_ and Lyrics3 [4]_.

.. [1] https://id3.org/ID3v1
.. [2] https://id3.org/id3v2.4.0-structure
.. [3] https://wiki.hydrogenaud.io/index.php?title=APEv2_specification
.. [4] https://id3.org/Lyrics3v2
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import BinaryIO

import numpy as np

from wholetrack.decoding.padding import padding_start

Range = tuple[int, int]

_ID3V2_HEADER_BYTES = 10
_ID3V1_BYTES, _ID3V1_EXTENSION_BYTES = 128, 227
_APE_HEADER_BYTES = 32
# Lyrics3 version 1 has at most 5,100 bytes of text.
_LYRICS_MAX_BYTES = 5200
_SEARCH_BYTES = 1 << 20
# What to search for inside a file: the beginning of ID3v2, and a part of ID3v1 and APEv2. Lyrics3 precedes ID3v1.
_PATTERNS = (b"ID3", b"TAG")
_APE_PREFIX = b"APE"
_HEAD_BYTES = 160
# No byte of a title, artist or album is a control character.
_ID3V1_TEXT = re.compile(rb"TAG[^\x01-\x1f]{94}", re.DOTALL)
_BEHIND_ID3V1 = re.compile(rb"ID3|TAG|APETAGEX|\xff[\xfa-\xfd\xf2-\xf5\xe2\xe3]")
# Audio contains these by chance about once in ten megabytes. A file with many more was crafted to keep this module
# busy.
_MAX_CANDIDATES = 10_000
_MAX_TRAILING_TAGS = 16


def leading_tags_end(file: BinaryIO) -> int:
    """Return the offset of the first byte behind the ID3v2 tags at the beginning of a file."""
    end = 0
    while True:
        file.seek(end)
        length = _id3v2_bytes(file.read(_ID3V2_HEADER_BYTES))
        if not length:
            return end
        end += length


def tag_ranges(file: BinaryIO, start: int, size: int, *, search_inside: bool) -> list[Range]:
    """Return where the tags behind ``start`` are, in order and without overlaps.

    Args:
        file: The file.
        start: Offset of the audio.
        size: Size of the file in bytes.
        search_inside: Whether to search for tags between joined files as well, and not only at the end.
    """
    end = _trailing_tags_start(file, start, size)
    tags = _tags_inside(file, start, end) if search_inside else []
    return [*tags, (end, size)] if end < size else tags


def _id3v2_bytes(header: bytes) -> int:
    """Return the size of the ID3v2 tag with this header, or 0 if it is not one."""
    is_header = len(header) == _ID3V2_HEADER_BYTES and header.startswith(b"ID3") and header[3] in (2, 3, 4)
    if not is_header or header[4] != 0 or header[5] & 0x0F or any(byte & 0x80 for byte in header[6:10]):
        return 0
    has_footer = bool(header[5] & 0x10)
    size = header[6] << 21 | header[7] << 14 | header[8] << 7 | header[9]
    return _ID3V2_HEADER_BYTES * (1 + has_footer) + size


def _trailing_tags_start(file: BinaryIO, start: int, size: int) -> int:
    """Return where the tags at the end of the file begin, and zeros before them, or its size if there are none."""
    end = size
    for _ in range(_MAX_TRAILING_TAGS):
        end = _before_tag(file, start, end)
    return padding_start(file, start, end)


def _before_tag(file: BinaryIO, start: int, end: int) -> int:
    """Return where the tag that ends at ``end`` begins, or ``end`` if there is none."""

    def last(n_bytes: int) -> bytes:
        if end - n_bytes < start:
            return b""
        file.seek(end - n_bytes)
        return file.read(n_bytes)

    if last(_ID3V1_BYTES).startswith(b"TAG"):
        extended = last(_ID3V1_BYTES + _ID3V1_EXTENSION_BYTES).startswith(b"TAG+")
        return end - _ID3V1_BYTES - extended * _ID3V1_EXTENSION_BYTES
    footer = last(_APE_HEADER_BYTES)
    length = 0
    if footer.startswith(b"APETAGEX"):
        length = _ape_bytes(footer)
    elif footer.endswith(b"LYRICS200") and footer[-15:-9].isdigit():
        length = int(footer[-15:-9]) + 15
    elif footer.endswith(b"LYRICSEND"):
        text = last(min(_LYRICS_MAX_BYTES, end - start))
        length = len(text) - text.rfind(b"LYRICSBEGIN") if b"LYRICSBEGIN" in text else 0
    elif footer[-10:-7] == b"3DI":
        length = _id3v2_bytes(b"ID3" + footer[-7:])
    return end - length if length <= end - start else end


def _ape_bytes(header: bytes) -> int:
    """Return the size of an APE tag according to its header or footer."""
    size, flags = int.from_bytes(header[12:16], "little"), int.from_bytes(header[20:24], "little")
    has_header = bool(flags >> 31)
    return size + has_header * _APE_HEADER_BYTES


def _tags_inside(file: BinaryIO, start: int, end: int) -> list[Range]:
    """Return the tags between ``start`` and ``end``, such as those between files that were joined."""
    tags: list[Range] = []
    for offset in islice(_offsets(file, start, end), _MAX_CANDIDATES):
        audio_start = tags[-1][1] if tags else start
        if offset >= audio_start and (tag := _tag_at(file, audio_start, offset)) and tag[1] <= end:
            tags.append(tag)
    return tags


def _tag_at(file: BinaryIO, start: int, offset: int) -> Range | None:
    """Return the tag at ``offset``, together with those directly before it, or None if there is none."""
    before = min(len(_APE_PREFIX), offset)
    file.seek(offset - before)
    head = file.read(before + _HEAD_BYTES)
    ape, head = head[: before + _APE_HEADER_BYTES], head[before:]
    if length := _id3v2_bytes(head[:_ID3V2_HEADER_BYTES]):
        return offset, offset + length
    if ape.startswith(b"APETAGEX") and int.from_bytes(ape[20:24], "little") >> 29 & 1:
        return offset - before, offset - before + _ape_bytes(ape)
    if _ID3V1_TEXT.match(head) and _BEHIND_ID3V1.match(head, _ID3V1_BYTES):
        return _trailing_tags_start(file, start, offset + _ID3V1_BYTES), offset + _ID3V1_BYTES
    return None


def _offsets(file: BinaryIO, start: int, end: int) -> Iterator[int]:
    """Yield the offsets in ascending order where a tag may begin."""
    overlap = max(map(len, _PATTERNS)) - 1
    position = start
    while position < end:
        file.seek(position)
        chunk = file.read(min(_SEARCH_BYTES + overlap, end - position))
        found = {offset for pattern in _PATTERNS for offset in _occurrences(chunk, pattern)}
        yield from (position + offset for offset in sorted(found) if offset < _SEARCH_BYTES)
        position += _SEARCH_BYTES


def _occurrences(content: bytes, pattern: bytes) -> list[int]:
    """Return where a pattern begins in the content. Unlike ``bytes.find``, this lets other threads run."""
    values = np.frombuffer(content, dtype=np.uint8)
    found = np.flatnonzero(values[: max(0, len(values) - len(pattern) + 1)] == pattern[0])
    for offset, value in enumerate(pattern[1:], start=1):
        found = found[values[found + offset] == value]
    return found.tolist()
