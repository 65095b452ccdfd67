"""Checkpoints in TensorFlow's format, written here byte by byte, and the damage that a reader must notice."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from wholetrack_training.errors import DataError
from wholetrack_training.importing.tensorflow_checkpoint import masked_crc, read_checkpoint

VARIABLES = {
    "conv2d/bias": np.array([1.5, -2.0], dtype=np.float32),
    "conv2d/kernel": np.arange(12, dtype=np.float32).reshape(3, 2, 2),
    "conv2d/kernel/Adam": np.ones(400, dtype=np.float32),
    "scale": np.float32(0.25) + np.zeros((), dtype=np.float32),
}
HEADER = b"\x08\x01\x1a\x02\x08\x01"  # one file, written by version 1


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def entry(array: np.ndarray, offset: int, *, kind: int = 1) -> bytes:
    shape = b"".join(field(2, field(1, size)) for size in array.shape)
    crc = varint(6 << 3 | 5) + struct.pack("<I", masked_crc(array.tobytes()))
    return field(1, kind) + field(2, shape) + field(4, offset) + field(5, array.nbytes) + crc


def block(entries: Sequence[tuple[bytes, bytes]], *, kind: int = 0) -> bytes:
    """Return a block with its trailer; every key is stored as what differs from the one before it."""
    content, before = b"", b""
    for key, value in entries:
        shared = next(
            (i for i, (a, b) in enumerate(zip(before, key, strict=False)) if a != b), min(len(before), len(key))
        )
        content += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    content += struct.pack("<II", 0, 1)
    return content + bytes([kind]) + struct.pack("<I", masked_crc(content + bytes([kind])))


def table(blocks: Sequence[bytes]) -> bytes:
    content, index = b"", []
    for i, each in enumerate(blocks):
        index.append((b"%d" % i, varint(len(content)) + varint(len(each) - 5)))
        content += each
    statistics, handles = block([]), b""
    for each in (statistics, block(index)):
        handles += varint(len(content)) + varint(len(each) - 5)
        content += each
    return content + handles.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def write(folder: Path, *, header: bytes = HEADER, kind: int = 1, compression: int = 0) -> tuple[Path, Path]:
    values, entries = b"", [(b"", header)]
    for name, array in sorted(VARIABLES.items()):
        entries.append((name.encode(), entry(array, len(values), kind=kind)))
        values += array.tobytes()
    index, data = folder / ".index", folder / ".data-00000-of-00001"
    index.write_bytes(table([block(entries[:2], kind=compression), block(entries[2:])]))
    data.write_bytes(values)
    return index, data


def test_the_variables_are_read_by_name(tmp_path: Path) -> None:
    found = read_checkpoint(*write(tmp_path), lambda name: "Adam" not in name)
    assert sorted(found) == ["conv2d/bias", "conv2d/kernel", "scale"]
    for name, array in found.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, VARIABLES[name])
        assert array.shape == VARIABLES[name].shape


def test_the_checksum_is_that_of_the_published_test_vector() -> None:
    # RFC 3720, B.4: the CRC-32C of 32 bytes of zeros is 0x8A9136AA.
    crc = 0x8A9136AA
    assert masked_crc(bytes(32)) == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[9] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "damage", "complaint"),
    [
        (0, truncate, "the index is not a table"),
        (0, flip, "the checksum of the index is wrong"),
        (0, Path.unlink, "No such file"),
        (1, truncate, "incomplete"),
        (1, flip, "their checksum is wrong"),
        (1, Path.unlink, "No such file"),
    ],
)
def test_damage_is_noticed(tmp_path: Path, file: int, damage: Callable[[Path], None], complaint: str) -> None:
    paths = write(tmp_path)
    damage(paths[file])
    with pytest.raises(DataError, match=complaint):
        read_checkpoint(*paths, lambda _: True)


@pytest.mark.parametrize(
    ("header", "kind", "compression", "complaint"),
    [
        (b"\x08\x02", 1, 0, "in several files"),
        (b"\x08\x01\x10\x01", 1, 0, "big-endian"),
        (HEADER, 2, 0, "not float32"),
        (HEADER, 1, 1, "is compressed"),
    ],
)
def test_other_kinds_of_checkpoints_are_refused(
    tmp_path: Path, header: bytes, kind: int, compression: int, complaint: str
) -> None:
    with pytest.raises(DataError, match=complaint):
        read_checkpoint(*write(tmp_path, header=header, kind=kind, compression=compression), lambda _: True)
