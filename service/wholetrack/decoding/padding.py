"""Find the zeros that some programs append to mp3, AAC and FLAC files, and which ffmpeg reports as damage.

Silent frames end with zeros as well, so an mp3 or AAC file is cut where its last frame ends according to its header
(ISO/IEC 11172-3, 2.4.2.3 and ISO/IEC 13818-7, 6.2).
"""

from __future__ import annotations

from typing import BinaryIO

_BLOCK_BYTES = 1 << 16
_MAX_PADDING_BYTES = 16 << 20
# Longest frame of MPEG audio (layer II, 384 kb/s at 32 kHz) and of ADTS.
_MAX_FRAME_BYTES = 8192
_HEADER_BYTES = 6
_LAYER_II, _LAYER_III = 2, 1
_MPEG_1 = 3
# Bit rates in kb/s and sample rates in Hz, by their indices in a header.
_BIT_RATES = {
    (True, _LAYER_III): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (True, _LAYER_II): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (False, _LAYER_III): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, _LAYER_II): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_SAMPLE_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


def padding_start(file: BinaryIO, start: int, end: int) -> int:
    """Return where the zeros at the end of the audio begin, or ``end`` if there are none.

    Args:
        file: The file.
        start: Offset of the first byte of the audio.
        end: Offset behind its last byte.
    """
    zeros = _zeros_start(file, start, end)
    if zeros == end:
        return end
    file.seek(start)
    first = file.read(_HEADER_BYTES)
    if first.startswith(b"fLaC"):
        # The last byte of the audio is zero in one of 256 files. A single zero is not reported as damage.
        return min(zeros + 1, end)
    begin = max(start, zeros - _MAX_FRAME_BYTES)
    file.seek(begin)
    tail = file.read(zeros - begin + _HEADER_BYTES)
    for offset in range(zeros - begin - 1, -1, -1):
        header = tail[offset : offset + _HEADER_BYTES]
        if _is_similar(header, first) and zeros <= (frame_end := begin + offset + frame_bytes(header)) <= end:
            return frame_end
    return end


def frame_bytes(header: bytes) -> int:
    """Return the length of an MPEG audio or ADTS frame with this header of six bytes, or 0 if it has no length."""
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    if layer == 0:
        return (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    bit_rate, sample_rate, is_padded = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    bit_rates = _BIT_RATES.get((version == _MPEG_1, layer))
    sample_rates = _SAMPLE_RATES.get(version)
    if bit_rates is None or sample_rates is None or bit_rate >= len(bit_rates) or sample_rate >= len(sample_rates):
        return 0
    samples = 576 if layer == _LAYER_III and version != _MPEG_1 else 1152
    return samples * 125 * bit_rates[bit_rate] // sample_rates[sample_rate] + is_padded


def _is_similar(header: bytes, first: bytes) -> bool:
    """Return whether a header has the version, layer and sample rate of the first frame."""
    return (
        len(header) == len(first) == _HEADER_BYTES
        and header[:2] == first[:2]
        and header[0] == 0xFF
        and header[1] >= 0xE0
        and not (header[2] ^ first[2]) & 0x0C
    )


def _zeros_start(file: BinaryIO, start: int, end: int) -> int:
    """Return the offset behind the last byte that is not zero."""
    position, stop = end, max(start, end - _MAX_PADDING_BYTES)
    while position > stop:
        begin = max(stop, position - _BLOCK_BYTES)
        file.seek(begin)
        rest = file.read(position - begin).rstrip(b"\0")
        if rest:
            return begin + len(rest)
        position = begin
    return position
