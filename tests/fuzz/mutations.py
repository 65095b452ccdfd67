"""Seeded damage to files: a seed and a number reproduce any damaged file byte by byte.

A mutation is a pure function of the bytes of a file, a random number generator, and the bytes of other files. It
accepts any file of at least one byte, and returns at least one byte and at most twice the size of the largest file that
it received.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tests.fuzz.corpus import Origin

Mutation = Callable[[bytes, np.random.Generator, Sequence[bytes]], bytes]

MAX_GROWTH = 4
"""Largest size of a mutant, relative to the largest file that it was made from."""

# Most containers have their metadata in a header, an mp4 often in an index at the end. Sizes in bytes.
_HEADER, _INDEX = 512, 2048
_EXTREMES = {
    2: (0, 1, 0x7FFF, 0x8000, 0xFFFF),
    4: (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF),
}
# Bytes that identify containers and their parts.
_MARKERS = (
    *(b"RIFF", b"RF64", b"WAVE", b"fmt ", b"data", b"LIST", b"fLaC", b"OggS", b"OpusHead", b"\x01vorbis"),
    *(b"ID3\x04\x00\x00", b"TAG", b"APETAGEX", b"Xing", b"ftyp", b"moov", b"moof", b"mdat", b"stsd", b"stts", b"stco"),
    *(b"FORM", b"AIFC", b"COMM", b"SSND", b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
    *(b"\xff\xfb\x90\x64", b"\xff\xf1\x50\x80", b"PK\x03\x04", b"%PDF", b"#EXTM3U\n", b"ffconcat version 1.0\n"),
)
# Lines of ffmpeg's log, which the service reads, and which contains the text of tags.
_LOG_LINES = (
    b"\n[info] Input #0, wav, from 'x':\n",
    b"\n[info] Output #0\n",
    b"\n[error] no\n[fatal] no\n",
    b"\n[x @ 0] [error] Codec (x) not on whitelist\n",
    b"\n[info]   Duration: " + b"9" * 400 + b":00:00.00\n",
    b"\n[info]   Stream #0:0: Audio: x, " + b"9" * 400 + b" Hz, " + b"9" * 100 + b" channels\n",
)
_TEXT = re.compile(rb"[ -~]{16,}")
_TEXT_SEARCH_BYTES = 1 << 16
_MAX_MUTATIONS = 4
_MAX_BLOCK = 1 << 16
_OGG_PAGE = b"OggS"
_OGG_HEADER = 27


@dataclass(frozen=True, slots=True)
class Mutant:
    """A damaged file.

    Attributes:
        seed: Seed of the campaign.
        number: Number within the campaign.
        origins: Names of the files it was made from; the first is the one that was damaged.
        mutations: Names of the mutations, in order.
        suffix: Suffix of the first origin, without a dot.
        content: Its bytes.
    """

    seed: int
    number: int
    origins: tuple[str, ...]
    mutations: tuple[str, ...]
    suffix: str
    content: bytes


def make_mutant(origins: Sequence[Origin], seed: int, number: int) -> Mutant:
    """Return the damaged file for a seed and a number.

    All suffixes are equally likely, however many files have them.
    """
    rng = np.random.default_rng([seed, number])
    first, *others = (_choose(origins, rng) for _ in range(3))
    contents = [other.content for other in others]
    limit = MAX_GROWTH * max(map(len, (first.content, *contents)))
    content, names = first.content, []
    for _ in range(rng.integers(1, _MAX_MUTATIONS, endpoint=True)):
        mutation = MUTATIONS[rng.integers(len(MUTATIONS))]
        content = mutation(content, rng, contents)[:limit]
        names.append(mutation.__name__)
    if _OGG_PAGE in content and rng.integers(2):
        content = fix_checksums(content)
        names.append(fix_checksums.__name__)
    if content == first.content:
        content = flip_few_bits(content, rng, contents)
        names.append(flip_few_bits.__name__)
    return Mutant(seed, number, (first.name, *(other.name for other in others)), tuple(names), first.suffix, content)


def _choose(origins: Sequence[Origin], rng: np.random.Generator) -> Origin:
    suffixes = sorted({origin.suffix for origin in origins})
    suffix = suffixes[rng.integers(len(suffixes))]
    candidates = [origin for origin in origins if origin.suffix == suffix]
    return candidates[int(rng.integers(len(candidates)))]


def flip_few_bits(content: bytes, rng: np.random.Generator, _others: Sequence[bytes]) -> bytes:
    """Flip one to eight bits, most of them in the metadata."""
    positions = {_position(len(content), rng) for _ in range(rng.integers(1, 9))}
    changed = bytearray(content)
    for position in positions:
        changed[position] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def flip_many_bits(content: bytes, rng: np.random.Generator, _others: Sequence[bytes]) -> bytes:
    """Flip a bit in between one of 100,000 and one of ten bytes, anywhere."""
    positions = np.flatnonzero(rng.random(len(content)) < 10 ** rng.uniform(-5, -1))
    positions = positions if len(positions) else np.array([rng.integers(len(content))])
    changed = np.frombuffer(content, dtype=np.uint8).copy()
    changed[positions] ^= np.left_shift(1, rng.integers(8, size=len(positions))).astype(np.uint8)
    return changed.tobytes()


def truncate(content: bytes, rng: np.random.Generator, _others: Sequence[bytes]) -> bytes:
    """Cut the file off at a random position, in a quarter of the cases within the header."""
    shortest = min(_HEADER, len(content)) if rng.integers(4) == 0 else len(content)
    return content[: max(1, int(rng.integers(shortest)))]


def remove_block(content: bytes, rng: np.random.Generator, _others: Sequence[bytes]) -> bytes:
    """Remove a block."""
    begin, end = _block(len(content), rng)
    return content[:begin] + content[end:] or content[:1]


def duplicate_block(content: bytes, rng: np.random.Generator, _others: Sequence[bytes]) -> bytes:
    """Repeat a block once or more."""
    begin, end = _block(len(content), rng)
    times = int(rng.integers(1, min(64, len(content) // (end - begin)), endpoint=True))
    return content[:end] + content[begin:end] * times + content[end:]


def swap_blocks(content: bytes, rng: np.random.Generator, _others: Sequence[bytes]) -> bytes:
    """Swap two adjacent blocks of any lengths."""
    begin, middle, end = sorted(rng.integers(len(content), size=3, endpoint=True).tolist())
    return content[:begin] + content[middle:end] + content[begin:middle] + content[end:]


def splice(content: bytes, rng: np.random.Generator, others: Sequence[bytes]) -> bytes:
    """Join the beginning of the file and the end of another, whatever their containers."""
    other = others[int(rng.integers(len(others)))]
    return content[: _position(len(content), rng) + 1] + other[_position(len(other), rng) :]


def insert_block(content: bytes, rng: np.random.Generator, others: Sequence[bytes]) -> bytes:
    """Insert a block of another file."""
    other = others[int(rng.integers(len(others)))]
    begin, end = _block(len(other), rng)
    position = _position(len(content), rng)
    return content[:position] + other[begin:end] + content[position:]


def overwrite_with_noise(content: bytes, rng: np.random.Generator, _others: Sequence[bytes]) -> bytes:
    """Overwrite a block with random bytes."""
    begin, end = _block(len(content), rng)
    return content[:begin] + rng.bytes(end - begin) + content[end:]


def overwrite_with_zeros(content: bytes, rng: np.random.Generator, _others: Sequence[bytes]) -> bytes:
    """Overwrite a block with zeros, as after a failed write to a disk."""
    begin, end = _block(len(content), rng)
    return content[:begin] + bytes(end - begin) + content[end:]


def overwrite_with_ones(content: bytes, rng: np.random.Generator, _others: Sequence[bytes]) -> bytes:
    """Overwrite a block with 0xFF, like erased flash memory; in mp3 and ADTS it looks like the start of frames."""
    begin, end = _block(len(content), rng)
    return content[:begin] + b"\xff" * (end - begin) + content[end:]


def set_fields_to_extremes(content: bytes, rng: np.random.Generator, _others: Sequence[bytes]) -> bytes:
    """Overwrite one to four integers, mostly in the header, with values that programs often handle incorrectly."""
    changed = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        width = int(rng.choice((2, 4)))
        value = _EXTREMES[width][rng.integers(len(_EXTREMES[width]))]
        position = _position(len(content), rng)
        # Most containers align their fields.
        position -= position % 2 if rng.integers(2) else 0
        field = value.to_bytes(width, "little" if rng.integers(2) else "big")
        changed[position : position + width] = field[: len(changed) - position]
    return bytes(changed)


def write_marker(content: bytes, rng: np.random.Generator, _others: Sequence[bytes]) -> bytes:
    """Write a marker of a container or a line of ffmpeg's log, in half of the cases into text such as a tag."""
    markers = (_MARKERS, _LOG_LINES)[rng.integers(2)]
    texts = [found.span() for found in _TEXT.finditer(content, 0, _TEXT_SEARCH_BYTES)]
    if texts and rng.integers(2):
        position = int(rng.integers(*texts[rng.integers(len(texts))]))
    else:
        position = _position(len(content), rng)
    marker = markers[rng.integers(len(markers))][: len(content) - position]
    return content[:position] + marker + content[position + len(marker) :]


def repeat_header(content: bytes, rng: np.random.Generator, _others: Sequence[bytes]) -> bytes:
    """Repeat the beginning of the file many times before the file."""
    header = content[: rng.integers(1, _HEADER, endpoint=True)]
    times = int(rng.integers(1, min(500, len(content) // len(header)), endpoint=True))
    return header * times + content


def append_garbage(content: bytes, rng: np.random.Generator, _others: Sequence[bytes]) -> bytes:
    """Append random bytes or zeros."""
    size = int(rng.integers(1, min(len(content), _MAX_BLOCK), endpoint=True))
    return content + (rng.bytes(size) if rng.integers(2) else bytes(size))


MUTATIONS: tuple[Mutation, ...] = (
    flip_few_bits,
    flip_many_bits,
    truncate,
    remove_block,
    duplicate_block,
    swap_blocks,
    splice,
    insert_block,
    overwrite_with_noise,
    overwrite_with_zeros,
    overwrite_with_ones,
    # Twice as likely as the others, because it is the closest to a file crafted by an attacker.
    set_fields_to_extremes,
    set_fields_to_extremes,
    write_marker,
    repeat_header,
    append_garbage,
)


def fix_checksums(content: bytes) -> bytes:
    """Return the file with valid checksums in all Ogg pages, since decoders skip pages with invalid ones."""
    changed = bytearray(content)
    position = content.find(_OGG_PAGE)
    while position >= 0:
        table = content[position + _OGG_HEADER :][: content[position + 26]] if position + 26 < len(content) else b""
        end = position + _OGG_HEADER + len(table) + sum(table)
        if position + _OGG_HEADER <= len(content) and end <= len(content):
            changed[position + 22 : position + 26] = bytes(4)
            struct.pack_into("<I", changed, position + 22, _ogg_checksum(bytes(changed[position:end])))
        position = content.find(_OGG_PAGE, position + 1)
    return bytes(changed)


_REVERSED_BITS = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


def _ogg_checksum(page: bytes) -> int:
    """Return the CRC-32 of an Ogg page (RFC 3533): zlib's with reversed bit order, initial value 0, not inverted."""
    crc = zlib.crc32(page.translate(_REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{crc:032b}"[::-1], 2)


def _position(length: int, rng: np.random.Generator) -> int:
    """Return an index into a file: in half of the cases in its header, in a quarter near its end, else anywhere."""
    begin, end = ((0, _HEADER), (0, _HEADER), (length - _INDEX, length), (0, length))[rng.integers(4)]
    return int(rng.integers(max(0, begin), min(length, end)))


def _block(length: int, rng: np.random.Generator) -> tuple[int, int]:
    """Return a half-open range of at least one byte, with a log-uniform length."""
    begin = _position(length, rng)
    size = int(2 ** rng.uniform(0, np.log2(min(length, _MAX_BLOCK) + 1)))
    return begin, min(length, begin + max(1, size))
