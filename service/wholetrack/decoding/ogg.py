"""Read the page structure of Ogg files (RFC 3533)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

_HEADER_BYTES = 27
_MAX_SEGMENTS = 255
_FIRST_PAGE = 0x02
_BUFFER_BYTES = 1 << 18
# Three hours of pages with one packet of 20 ms each are 540,000 pages, and five days of songs on the radio are 2,000
# links. A file with more was crafted to keep this module or ffmpeg busy.
_MAX_PAGES, _MAX_LINKS = 1_000_000, 2_000


@dataclass(frozen=True, slots=True)
class OggFile:
    """The structure of an Ogg file.

    Attributes:
        links: Offsets of the first byte and behind the last one of each link, that is of each of the streams that
            follow one another. A link may consist of several streams that are interleaved. Links of headers only are
            left out, unless there are no others.
        is_truncated: Whether the last page is incomplete. A missing end-of-stream flag does not count, because some
            programs never set it.
    """

    links: tuple[tuple[int, int], ...]
    is_truncated: bool


def read_ogg(file: BinaryIO, start: int, size: int) -> OggFile:
    """Walk through the pages of an Ogg file.

    Args:
        file: The file.
        start: Offset of the first page.
        size: Size of the file in bytes.
    """
    pages = _PageReader(file, size)
    link_starts: list[int] = []
    starts_with_audio: set[int] = set()
    position, end, was_first = start, start, False
    is_truncated = False
    for _ in range(_MAX_PAGES):
        page = pages.find(position)
        if page is None:
            break
        if page.is_first and not was_first and len(link_starts) < _MAX_LINKS:
            link_starts.append(page.start)
        if page.has_audio:
            starts_with_audio.add(link_starts[-1] if link_starts else start)
        if page.end > size:
            is_truncated = True
            end = size
            break
        was_first = page.is_first
        position = end = page.end
    else:
        end = size
    if not link_starts or link_starts[0] > start:
        link_starts.insert(0, start)
    links = [(a, b) for a, b in zip(link_starts, [*link_starts[1:], end], strict=True) if a < b]
    # A process is started for each link, so that thousands of links of a few bytes would keep it busy for a minute.
    with_audio = [link for link in links if link[0] in starts_with_audio]
    return OggFile(tuple(with_audio or links) or ((start, size),), is_truncated)


@dataclass(frozen=True, slots=True)
class _Page:
    start: int
    end: int
    is_first: bool = False
    # The granule position of pages with headers is 0, and that of pages on which no packet ends is -1.
    has_audio: bool = False


class _PageReader:
    """Reads the headers of pages. The file is read in large blocks, because pages are small and numerous."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self._block = b""
        self._block_start = 0

    def find(self, position: int) -> _Page | None:
        """Return the first page at or behind ``position``; None if there is none."""
        while position < self._size:
            offset = self._load(position)
            if not self._block.startswith(b"OggS", offset):
                offset = self._block.find(b"OggS", offset)
                if offset < 0:
                    # The last bytes may be the beginning of a capture pattern.
                    position = max(position + 1, self._block_start + len(self._block) - 3)
                    continue
                position = self._block_start + offset
                offset = self._load(position)
            return self._page(position, offset)
        return None

    def _load(self, position: int) -> int:
        """Make sure that the header of a page at ``position`` is in the block, and return its offset there."""
        offset = position - self._block_start
        needed = min(_HEADER_BYTES + _MAX_SEGMENTS, self._size - position)
        if offset < 0 or offset + needed > len(self._block):
            self._file.seek(position)
            self._block, self._block_start = self._file.read(_BUFFER_BYTES), position
            return 0
        return offset

    def _page(self, position: int, offset: int) -> _Page:
        header = self._block[offset : offset + _HEADER_BYTES]
        if len(header) < _HEADER_BYTES:
            return _Page(position, self._size + 1)
        segments = self._block[offset + _HEADER_BYTES : offset + _HEADER_BYTES + header[26]]
        end = position + _HEADER_BYTES + header[26] + sum(segments)
        if len(segments) < header[26]:
            end = self._size + 1
        granule_position = int.from_bytes(header[6:14], "little", signed=True)
        return _Page(position, end, bool(header[5] & _FIRST_PAGE), granule_position > 0)
