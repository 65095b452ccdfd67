"""An m4a whose index needs far more memory than the file itself."""

from __future__ import annotations

import struct


def with_big_index(m4a: bytes, sizes: tuple[int, ...]) -> bytes:
    """Add tracks that consist of nothing but an index.

    Args:
        m4a: An m4a whose index is at its end.
        sizes: Number of packets in each track. A decoder needs about 35 bytes for each.
    """
    start = m4a.rindex(b"moov") - 4
    (size,) = struct.unpack(">I", m4a[start : start + 4])
    assert start + size == len(m4a)
    tracks = b"".join(_track(number, n_packets) for number, n_packets in enumerate(sizes, start=2))
    return m4a[:start] + struct.pack(">I", size + len(tracks)) + m4a[start + 4 :] + tracks


def _box(name: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I4s", 8 + len(body), name) + body


def _track(number: int, n_packets: int) -> bytes:
    """Return a track with ``n_packets`` packets of one byte each, in a single chunk (ISO/IEC 14496-12)."""
    matrix = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    header = struct.pack(">IIIIII8xHHHH", 15, 0, 0, number, 0, n_packets, 0, 0, 0x100, 0) + matrix + bytes(8)
    # AAC-LC, 22,050 Hz, mono.
    description = b"\x40\x15" + bytes(11) + b"\x05\x02\x13\x88"
    descriptor = bytes(4) + b"\x03" + bytes([len(description) + 8]) + b"\0\1\0\x04" + bytes([len(description)])
    codec = bytes(6) + struct.pack(">HHHIHHHHI", 1, 0, 0, 0, 2, 16, 0, 0, 22050 << 16)
    entry = _box(b"mp4a", codec, _box(b"esds", descriptor, description, b"\6\1\2"))
    samples = _box(
        b"stbl",
        _box(b"stsd", struct.pack(">II", 0, 1), entry),
        _box(b"stts", struct.pack(">IIII", 0, 1, n_packets, 1024)),
        _box(b"stsc", struct.pack(">IIIII", 0, 1, 1, n_packets, 1)),
        _box(b"stsz", struct.pack(">III", 0, 1, n_packets)),
        _box(b"stco", struct.pack(">III", 0, 1, 44)),
    )
    location = _box(b"dinf", _box(b"dref", struct.pack(">II", 0, 1), _box(b"url ", struct.pack(">I", 1))))
    media = _box(
        b"mdia",
        _box(b"mdhd", struct.pack(">IIIIIHH", 0, 0, 0, 22050, n_packets, 0, 0)),
        _box(b"hdlr", struct.pack(">I4s4s", 0, b"mhlr", b"soun") + bytes(13)),
        _box(b"minf", _box(b"smhd", bytes(8)), location, samples),
    )
    return _box(b"trak", _box(b"tkhd", header), media)
