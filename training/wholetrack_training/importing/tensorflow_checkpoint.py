"""Reads the variables of a TensorFlow checkpoint without TensorFlow.

A checkpoint of version 2 consists of an index and of files with the raw values. The index is a table in the format of
LevelDB (``table_format.md`` there) with one entry per variable, a ``BundleEntryProto`` (``tensor_bundle.proto`` of
TensorFlow). Only what TensorFlow writes by default is read: uncompressed tables and little-endian values.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wholetrack_training.errors import DataError

_FOOTER = 48
_MAGIC = 0xDB4775248B80FB57
_BLOCK_TRAILER = 5
_UNCOMPRESSED = 0
_HEADER_KEY = b""
_DT_FLOAT = 1

# CRC-32C (Castagnoli), as LevelDB and TensorFlow store it: rotated, plus a constant.
_POLYNOMIAL = 0x82F63B78
_MASK_DELTA = 0xA282EAD8

# Fields of BundleHeaderProto and BundleEntryProto.
_NUM_SHARDS, _ENDIANNESS = 1, 2
_DTYPE, _SHAPE, _SHARD, _OFFSET, _SIZE, _CRC, _SLICES = 1, 2, 3, 4, 5, 6, 7


@dataclass(frozen=True, slots=True)
class _Variable:
    shape: tuple[int, ...]
    offset: int
    size: int
    crc: int


def read_checkpoint(index: Path, data: Path, wanted: Callable[[str], bool]) -> dict[str, NDArray[np.float32]]:
    """Read float32 variables of a checkpoint.

    Args:
        index: The file that ends with ``.index``.
        data: The file that ends with ``.data-00000-of-00001``.
        wanted: Whether to read the variable with this name.

    Returns:
        The variables by name.

    Raises:
        DataError: If the checkpoint is missing, damaged, or of another kind.
    """
    try:
        entries = dict(_table(index.read_bytes()))
        _check_header(_fields(entries.pop(_HEADER_KEY)))
        content = data.read_bytes()
        variables = {name: value for key, value in entries.items() if wanted(name := key.decode())}
        return {name: _values(_variable(value), content) for name, value in variables.items()}
    except (IndexError, KeyError, OSError, TypeError, ValueError, struct.error) as error:
        raise DataError(f"{index} does not belong to a TensorFlow checkpoint that can be read: {error}") from error


def _table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the entries of a table."""
    footer = content[-_FOOTER:]
    if len(footer) < _FOOTER or struct.unpack_from("<Q", footer, _FOOTER - 8)[0] != _MAGIC:
        raise ValueError("the index is not a table")
    _, position = _handle(footer, 0)  # of the block with statistics, which is empty
    (offset, size), _ = _handle(footer, position)
    for _, value in _block(content, offset, size):
        (offset, size), _ = _handle(value, 0)
        yield from _block(content, offset, size)


def _block(content: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the entries of a block; a key is stored as the part that differs from the one before it."""
    block, trailer = content[offset : offset + size], content[offset + size : offset + size + _BLOCK_TRAILER]
    kind, crc = struct.unpack("<BI", trailer)
    if crc != masked_crc(block + trailer[:1]):
        raise ValueError("the checksum of the index is wrong")
    if kind != _UNCOMPRESSED:
        raise ValueError("the index is compressed")
    (restarts,) = struct.unpack_from("<I", block, size - 4)
    end, position, key = size - 4 - 4 * restarts, 0, b""
    while position < end:
        shared, position = _varint(block, position)
        added, position = _varint(block, position)
        length, position = _varint(block, position)
        key = key[:shared] + block[position : position + added]
        position += added
        yield key, block[position : position + length]
        position += length


def _handle(content: bytes, position: int) -> tuple[tuple[int, int], int]:
    """Return offset and size of a block, and the position behind them."""
    offset, position = _varint(content, position)
    size, position = _varint(content, position)
    return (offset, size), position


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """Return an integer of variable length, and the position behind it."""
    value = shift = 0
    while True:
        byte = content[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position


def _fields(message: bytes) -> dict[int, list[int | bytes]]:
    """Return the fields of a protocol buffer by number: integers, and the bytes of everything else."""
    fields: dict[int, list[int | bytes]] = {}
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        value: int | bytes
        match tag & 7:
            case 0:
                value, position = _varint(message, position)
            case 2:
                length, position = _varint(message, position)
                value, position = message[position : position + length], position + length
            case 5:
                (value,), position = struct.unpack_from("<I", message, position), position + 4
            case kind:
                raise ValueError(f"the index has a field of the unknown kind {kind}")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _check_header(header: dict[int, list[int | bytes]]) -> None:
    if header.get(_NUM_SHARDS) != [1]:
        raise ValueError("the values are in several files")
    if header.get(_ENDIANNESS, [0]) != [0]:
        raise ValueError("the values are big-endian")


def _variable(entry: bytes) -> _Variable:
    fields = _fields(entry)
    if fields.get(_DTYPE) != [_DT_FLOAT] or _SLICES in fields or fields.get(_SHARD, [0]) != [0]:
        raise ValueError("a variable is not float32, or is stored in parts")
    (shape,) = fields.get(_SHAPE, [b""])
    assert isinstance(shape, bytes)
    dimensions = [_fields(dimension)[1][0] for dimension in _fields(shape).get(2, []) if isinstance(dimension, bytes)]
    offset, size, crc = (int(fields.get(field, [0])[0]) for field in (_OFFSET, _SIZE, _CRC))
    return _Variable(tuple(map(int, dimensions)), offset, size, crc)


def _values(variable: _Variable, content: bytes) -> NDArray[np.float32]:
    stored = content[variable.offset : variable.offset + variable.size]
    if len(stored) != 4 * prod(variable.shape) or masked_crc(stored) != variable.crc:
        raise ValueError("the values of a variable are incomplete, or their checksum is wrong")
    return np.frombuffer(stored, dtype="<f4").astype(np.float32).reshape(variable.shape)


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)  # noqa: PLW2901
        table.append(byte)
    return table


_CRC_TABLE = _crc_table()


def masked_crc(content: bytes) -> int:
    """Return the CRC-32C of some bytes in the form in which LevelDB and TensorFlow store it."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = _CRC_TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF
