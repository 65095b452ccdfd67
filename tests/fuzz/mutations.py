"""Damage to files: seeded, so that two numbers make any damaged file again, byte by byte.

A mutation is a pure function of a file's bytes, a generator of random numbers, and the bytes of other files. It takes
any file of at least one byte, and gives at least one byte and at most twice the largest file that it was given.
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

LARGEST = 4
"""A mutant is at most so many times as large as the largest file that it was made of."""

# Where containers say what they hold: most at the beginning, an mp4 often at the end.
_HEADER, _INDEX = 512, 2048
_EXTREMES = {
    2: (0, 1, 0x7FFF, 0x8000, 0xFFFF),
    4: (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF),
}
# What containers are recognised by.
_MARKS = (
    *(b"RIFF", b"RF64", b"WAVE", b"fmt ", b"data", b"LIST", b"fLaC", b"OggS", b"OpusHead", b"\x01vorbis"),
    *(b"ID3\x04\x00\x00", b"TAG", b"APETAGEX", b"Xing", b"ftyp", b"moov", b"moof", b"mdat", b"stsd", b"stts", b"stco"),
    *(b"FORM", b"AIFC", b"COMM", b"SSND", b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
    *(b"\xff\xfb\x90\x64", b"\xff\xf1\x50\x80", b"PK\x03\x04", b"%PDF", b"#EXTM3U\n", b"ffconcat version 1.0\n"),
)
# What ffmpeg says of a file: the service reads it, and ffmpeg repeats what it finds in tags.
_LINES = (
    b"\n[info] Input #0, wav, from 'x':\n",
    b"\n[info] Output #0\n",
    b"\n[error] no\n[fatal] no\n",
    b"\n[x @ 0] [error] Codec (x) not on whitelist\n",
    b"\n[info]   Duration: " + b"9" * 400 + b":00:00.00\n",
    b"\n[info]   Stream #0:0: Audio: x, " + b"9" * 400 + b" Hz, " + b"9" * 100 + b" channels\n",
)
_TEXT = re.compile(rb"[ -~]{16,}")
_LONGEST_HEADER = 1 << 16
_MOST_MUTATIONS = 4
_LONGEST_STRETCH = 1 << 16
_OGG_PAGE = b"OggS"
_OGG_HEADER = 27


@dataclass(frozen=True, slots=True)
class Mutant:
    """A damaged file.

    Attributes:
        seed: of the campaign.
        number: within it.
        origins: names of the files that it was made of; the first is the one that was damaged.
        mutations: names of what was done to it, in order.
        suffix: of the first origin, without a dot.
        content: its bytes.
    """

    seed: int
    number: int
    origins: tuple[str, ...]
    mutations: tuple[str, ...]
    suffix: str
    content: bytes


def mutant(origins: Sequence[Origin], seed: int, number: int) -> Mutant:
    """Damage a file that two numbers choose in a way that they choose.

    Every suffix is as likely as every other, however many files have it.
    """
    rng = np.random.default_rng([seed, number])
    first, *others = (_chosen(origins, rng) for _ in range(3))
    contents = [other.content for other in others]
    limit = LARGEST * max(map(len, (first.content, *contents)))
    content, names = first.content, []
    for _ in range(rng.integers(1, _MOST_MUTATIONS, endpoint=True)):
        mutation = MUTATIONS[rng.integers(len(MUTATIONS))]
        content = mutation(content, rng, contents)[:limit]
        names.append(mutation.__name__)
    if _OGG_PAGE in content and rng.integers(2):
        content = with_right_checksums(content)
        names.append(with_right_checksums.__name__)
    if content == first.content:
        content = few_bits_flipped(content, rng, contents)
        names.append(few_bits_flipped.__name__)
    return Mutant(seed, number, (first.name, *(other.name for other in others)), tuple(names), first.suffix, content)


def _chosen(origins: Sequence[Origin], rng: np.random.Generator) -> Origin:
    suffixes = sorted({origin.suffix for origin in origins})
    suffix = suffixes[rng.integers(len(suffixes))]
    alike = [origin for origin in origins if origin.suffix == suffix]
    return alike[int(rng.integers(len(alike)))]


def few_bits_flipped(content: bytes, rng: np.random.Generator, _others: Sequence[bytes]) -> bytes:
    """One to eight bits, most of them where the file describes itself."""
    places = {_place(len(content), rng) for _ in range(rng.integers(1, 9))}
    changed = bytearray(content)
    for place in places:
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def many_bits_flipped(content: bytes, rng: np.random.Generator, _others: Sequence[bytes]) -> bytes:
    """Between one byte of 100,000 and one of ten, anywhere."""
    places = np.flatnonzero(rng.random(len(content)) < 10 ** rng.uniform(-5, -1))
    places = places if len(places) else np.array([rng.integers(len(content))])
    changed = np.frombuffer(content, dtype=np.uint8).copy()
    changed[places] ^= np.left_shift(1, rng.integers(8, size=len(places))).astype(np.uint8)
    return changed.tobytes()


def truncated(content: bytes, rng: np.random.Generator, _others: Sequence[bytes]) -> bytes:
    """Cut off at a random place, in one of four cases within the header."""
    shortest = min(_HEADER, len(content)) if rng.integers(4) == 0 else len(content)
    return content[: max(1, int(rng.integers(shortest)))]


def stretch_removed(content: bytes, rng: np.random.Generator, _others: Sequence[bytes]) -> bytes:
    """Something in the middle is missing."""
    begin, end = _stretch(len(content), rng)
    return content[:begin] + content[end:] or content[:1]


def stretch_duplicated(content: bytes, rng: np.random.Generator, _others: Sequence[bytes]) -> bytes:
    """Something comes twice in a row, or more often."""
    begin, end = _stretch(len(content), rng)
    times = int(rng.integers(1, min(64, len(content) // (end - begin)), endpoint=True))
    return content[:end] + content[begin:end] * times + content[end:]


def stretches_swapped(content: bytes, rng: np.random.Generator, _others: Sequence[bytes]) -> bytes:
    """Two neighbours, of any lengths, in the other order."""
    begin, middle, end = sorted(rng.integers(len(content), size=3, endpoint=True).tolist())
    return content[:begin] + content[middle:end] + content[begin:middle] + content[end:]


def spliced(content: bytes, rng: np.random.Generator, others: Sequence[bytes]) -> bytes:
    """It begins as one file and goes on as another, whatever their containers."""
    other = others[int(rng.integers(len(others)))]
    return content[: _place(len(content), rng) + 1] + other[_place(len(other), rng) :]


def stretch_inserted(content: bytes, rng: np.random.Generator, others: Sequence[bytes]) -> bytes:
    """A stretch of another file somewhere within."""
    other = others[int(rng.integers(len(others)))]
    begin, end = _stretch(len(other), rng)
    place = _place(len(content), rng)
    return content[:place] + other[begin:end] + content[place:]


def overwritten_with_noise(content: bytes, rng: np.random.Generator, _others: Sequence[bytes]) -> bytes:
    """A stretch of random bytes."""
    begin, end = _stretch(len(content), rng)
    return content[:begin] + rng.bytes(end - begin) + content[end:]


def overwritten_with_zeros(content: bytes, rng: np.random.Generator, _others: Sequence[bytes]) -> bytes:
    """A stretch of zeros, as a disk leaves them."""
    begin, end = _stretch(len(content), rng)
    return content[:begin] + bytes(end - begin) + content[end:]


def overwritten_with_ones(content: bytes, rng: np.random.Generator, _others: Sequence[bytes]) -> bytes:
    """A stretch of 0xFF, as flash memory leaves it; to mp3 and ADTS it looks like the beginnings of frames."""
    begin, end = _stretch(len(content), rng)
    return content[:begin] + b"\xff" * (end - begin) + content[end:]


def fields_at_extremes(content: bytes, rng: np.random.Generator, _others: Sequence[bytes]) -> bytes:
    """One to four fields with the numbers that programs get wrong, mostly in the header."""
    changed = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        width = int(rng.choice((2, 4)))
        value = _EXTREMES[width][rng.integers(len(_EXTREMES[width]))]
        place = _place(len(content), rng)
        # Most containers align their fields.
        place -= place % 2 if rng.integers(2) else 0
        field = value.to_bytes(width, "little" if rng.integers(2) else "big")
        changed[place : place + width] = field[: len(changed) - place]
    return bytes(changed)


def words_written(content: bytes, rng: np.random.Generator, _others: Sequence[bytes]) -> bytes:
    """Something that means something where it does not belong, half of the time within a text such as a tag."""
    words = (_MARKS, _LINES)[rng.integers(2)]
    texts = [found.span() for found in _TEXT.finditer(content, 0, _LONGEST_HEADER)]
    if texts and rng.integers(2):
        place = int(rng.integers(*texts[rng.integers(len(texts))]))
    else:
        place = _place(len(content), rng)
    word = words[rng.integers(len(words))][: len(content) - place]
    return content[:place] + word + content[place + len(word) :]


def header_repeated(content: bytes, rng: np.random.Generator, _others: Sequence[bytes]) -> bytes:
    """The beginning again and again, and then the file."""
    header = content[: rng.integers(1, _HEADER, endpoint=True)]
    times = int(rng.integers(1, min(500, len(content) // len(header)), endpoint=True))
    return header * times + content


def garbage_appended(content: bytes, rng: np.random.Generator, _others: Sequence[bytes]) -> bytes:
    """Random bytes or zeros behind the end."""
    size = int(rng.integers(1, min(len(content), _LONGEST_STRETCH), endpoint=True))
    return content + (rng.bytes(size) if rng.integers(2) else bytes(size))


MUTATIONS: tuple[Mutation, ...] = (
    few_bits_flipped,
    many_bits_flipped,
    truncated,
    stretch_removed,
    stretch_duplicated,
    stretches_swapped,
    spliced,
    stretch_inserted,
    overwritten_with_noise,
    overwritten_with_zeros,
    overwritten_with_ones,
    # Twice as likely as the others: it comes nearest to a file made by somebody who means harm.
    fields_at_extremes,
    fields_at_extremes,
    words_written,
    header_repeated,
    garbage_appended,
)


def with_right_checksums(content: bytes) -> bytes:
    """The same with the checksum of every Ogg page made right: else no decoder looks at what was damaged in it."""
    changed = bytearray(content)
    place = content.find(_OGG_PAGE)
    while place >= 0:
        table = content[place + _OGG_HEADER :][: content[place + 26]] if place + 26 < len(content) else b""
        end = place + _OGG_HEADER + len(table) + sum(table)
        if place + _OGG_HEADER <= len(content) and end <= len(content):
            changed[place + 22 : place + 26] = bytes(4)
            struct.pack_into("<I", changed, place + 22, _ogg_checksum(bytes(changed[place:end])))
        place = content.find(_OGG_PAGE, place + 1)
    return bytes(changed)


_MIRRORED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


def _ogg_checksum(page: bytes) -> int:
    """Ogg's CRC-32 (RFC 3533): zlib's with every bit order the other way round, from 0 and not inverted."""
    mirrored = zlib.crc32(page.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)


def _place(length: int, rng: np.random.Generator) -> int:
    """An index into a file: half of the time in its header, sometimes near its end, else anywhere."""
    begin, end = ((0, _HEADER), (0, _HEADER), (length - _INDEX, length), (0, length))[rng.integers(4)]
    return int(rng.integers(max(0, begin), min(length, end)))


def _stretch(length: int, rng: np.random.Generator) -> tuple[int, int]:
    """A half-open range of at least one byte; as likely a few bytes as some thousands."""
    begin = _place(length, rng)
    size = int(2 ** rng.uniform(0, np.log2(min(length, _LONGEST_STRETCH) + 1)))
    return begin, min(length, begin + max(1, size))
