"""Read the headers of WAV files, as far as ffmpeg misinterprets them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

# A WAV has a handful of chunks. A file with more than this was crafted to keep the parser busy.
_MAX_CHUNKS = 1000
_CHUNK_HEADER_BYTES = 8
_RIFF_HEADER_BYTES = 12
_PCM, _EXTENSIBLE = 1, 0xFFFE
_INTEGER_CODECS = {1: "pcm_u8", 2: "pcm_s16le", 3: "pcm_s24le", 4: "pcm_s32le"}
# A program that writes to a pipe does not know the size in advance. Each one states another large number: 0xFFFFFFFF
# or 0x7FFFFFFF, possibly rounded to blocks and less the size of the header, or 0.
_UNKNOWN_SIZES = (range(1), range(0x7FFF0000, 0x80010000), range(0xFFFF0000, 0x100000000))
_W64_HEADER_BYTES, _W64_CHUNK_HEADER_BYTES = 40, 24
_W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
# Larger than any file; a size above this one is unknown.
_MAX_BYTES = 1 << 60
_READ_TO_THE_END = ("-ignore_length", "1")
_PADDING_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Wav:
    """What the header of a WAV file requires.

    Attributes:
        options: Input options for ffmpeg.
        is_truncated: Whether the file has fewer samples than its header states.
    """

    options: tuple[str, ...] = ()
    is_truncated: bool = False


@dataclass(frozen=True, slots=True)
class _Chunk:
    name: bytes
    start: int
    size: int


def read_wav(file: BinaryIO, start: int, size: int) -> Wav:
    """Read the header of a WAV file (RIFF, RF64 or BW64).

    Args:
        file: The file.
        start: Offset of the header.
        size: Size of the file in bytes.
    """
    options: tuple[str, ...] = ()
    long_size: int | None = None
    for chunk in _chunks(file, start + _RIFF_HEADER_BYTES, size):
        if chunk.name == b"fmt ":
            options += _codec_options(file.read(min(chunk.size, 40)))
        elif chunk.name == b"ds64":
            # RF64 (EBU Tech 3306): the 64-bit size of the data, behind that of the file.
            long_size = int.from_bytes(file.read(16)[8:], "little")
        elif chunk.name == b"data":
            is_long = chunk.size == 0xFFFFFFFF and long_size is not None
            return _with_data(file, options, chunk.start, (long_size or 0) if is_long else chunk.size, size)
    return Wav(options)


def _with_data(file: BinaryIO, options: tuple[str, ...], start: int, n_bytes: int, size: int) -> Wav:
    """Return what the stated size of the samples, ``n_bytes`` from ``start``, requires."""
    end = start + n_bytes
    if n_bytes >= _MAX_BYTES or any(n_bytes in sizes for sizes in _UNKNOWN_SIZES):
        return Wav((*options, *_READ_TO_THE_END))
    if end >= size:
        return Wav(options, is_truncated=end > size)
    # The size of a file of more than 4 GiB has wrapped around, or a program did not update it.
    if not _is_plausible_rest(file, end + n_bytes % 2, size):
        options += _READ_TO_THE_END
    return Wav(options)


def read_w64(file: BinaryIO, start: int, size: int) -> bool:
    """Return whether a Sony Wave64 file has fewer samples than its header states."""
    position = start + _W64_HEADER_BYTES
    for _ in range(_MAX_CHUNKS):
        if position + _W64_CHUNK_HEADER_BYTES > size:
            return True
        file.seek(position)
        header = file.read(_W64_CHUNK_HEADER_BYTES)
        # The size includes the header. Chunks are aligned to eight bytes.
        chunk_bytes = int.from_bytes(header[16:], "little")
        if header[:16] == _W64_DATA:
            return chunk_bytes < _MAX_BYTES and position + chunk_bytes > size
        position += max(chunk_bytes + -chunk_bytes % 8, _W64_CHUNK_HEADER_BYTES)
    return False


def _chunks(file: BinaryIO, position: int, size: int) -> Iterator[_Chunk]:
    """Yield the chunks from ``position``. The file is positioned at the content of each."""
    for _ in range(_MAX_CHUNKS):
        if position + _CHUNK_HEADER_BYTES > size:
            return
        file.seek(position)
        header = file.read(_CHUNK_HEADER_BYTES)
        chunk = _Chunk(header[:4], position + _CHUNK_HEADER_BYTES, int.from_bytes(header[4:], "little"))
        yield chunk
        position = chunk.start + chunk.size + chunk.size % 2


def _codec_options(fmt: bytes) -> tuple[str, ...]:
    """Return the decoder for integers with fewer valid bits than the bytes of a sample could hold.

    The value is in the upper bits, so it can be read as one that uses all bits. ffmpeg selects the decoder by the
    number of valid bits, and takes 24 valid bits in 32 for a rare floating-point format.
    """
    if len(fmt) < 16:
        return ()
    tag, channels = int.from_bytes(fmt[:2], "little"), int.from_bytes(fmt[2:4], "little")
    block_bytes, bits = int.from_bytes(fmt[12:14], "little"), int.from_bytes(fmt[14:16], "little")
    if tag == _EXTENSIBLE and len(fmt) >= 40:
        bits, tag = int.from_bytes(fmt[18:20], "little") or bits, int.from_bytes(fmt[24:26], "little")
    if tag != _PCM or not channels or block_bytes % channels or not bits:
        return ()
    sample_bytes = block_bytes // channels
    if (bits + 7) // 8 >= sample_bytes or sample_bytes not in _INTEGER_CODECS:
        return ()
    return ("-c:a", _INTEGER_CODECS[sample_bytes])


def _is_plausible_rest(file: BinaryIO, position: int, size: int) -> bool:
    """Return whether what follows the samples is further chunks or padding, and not more samples."""
    file.seek(position)
    header = file.read(_CHUNK_HEADER_BYTES)
    if len(header) < _CHUNK_HEADER_BYTES:
        return True
    has_name = all(0x20 <= byte < 0x7F for byte in header[:4])
    if has_name and position + _CHUNK_HEADER_BYTES + int.from_bytes(header[4:], "little") <= size + 1:
        return True
    padding = header + file.read(_PADDING_BYTES)
    # The ID3v1 tag of a careless tagger, or zeros up to a block boundary.
    return not any(padding) or (header.startswith(b"TAG") and size - position <= 128)
