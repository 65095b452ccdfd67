"""The messages between the service and a feature worker.

They are connected by Unix sockets that preserve message boundaries (``SOCK_SEQPACKET``): one for the worker, and one
for each track.

1. To open a track, the service sends a :class:`TrackSpec` to the worker, with the worker's end of the track's socket.
2. Over the track's socket, the service sends a :class:`Part` with the read end of ffmpeg's output, for each ffmpeg
   process of the track.
3. The service asks for a block with :data:`NEXT`. The worker replies with a :class:`Block` and, if there are windows or
   peaks, with shared memory that contains them, or with the text of an error.

The worker reads the output of ffmpeg only when a block was requested, so that a track that does not ask stops its
ffmpeg. When the service closes a track's socket, the worker forgets the track. When it closes the worker's socket, the
worker ends.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import struct
from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import Rows, Strip, Windows
from wholetrack.extraction.sealed_memory import SEALS, MessageError, SealedMemory
from wholetrack.extraction.windows import ExtractedWindows

NEXT = b"next"
"""Requests the next block of a track."""

MAX_SPEC_BYTES = 128 << 10
MAX_MESSAGE_BYTES = 4 << 10

_ERROR = b"error "
_PART = struct.Struct("<4sI?")
_PART_NAME = b"part"
_BLOCK = struct.Struct("<5s5I3d3?")
_BLOCK_NAME = b"block"
# Arrays begin at multiples of this, as the network reads them best.
_ALIGNMENT = 64


class TrackSpec(NamedTuple):
    """What to compute for a track.

    Attributes:
        contract: The model's :class:`wholetrack.contracts.FeatureContract`, as JSON.
        hop_s: Distance between window starts in seconds.
        peaks_per_s: Peaks of the waveform per second; 0 for none.
        keep_silent: Whether the inputs of silent windows are wanted as well.
    """

    contract: str
    hop_s: float
    peaks_per_s: int
    keep_silent: bool

    def encode(self) -> bytes:
        """Return the message."""
        return json.dumps(self._asdict()).encode()

    @classmethod
    def decode(cls, message: bytes) -> Self:
        """Read a message."""
        return cls(**json.loads(message))


class Part(NamedTuple):
    """The output of one ffmpeg process.

    Attributes:
        rate: Sample rate in exact decoding in Hz; None in quick decoding.
        is_last: Whether the track ends with it.
    """

    rate: int | None
    is_last: bool

    def encode(self) -> bytes:
        """Return the message."""
        return _PART.pack(_PART_NAME, self.rate or 0, self.is_last)

    @classmethod
    def decode(cls, message: bytes) -> Self:
        """Read a message.

        Raises:
            MessageError: If it is another message.
        """
        if len(message) != _PART.size or not message.startswith(_PART_NAME):
            raise MessageError(f"not a part: {message[:20]!r}")
        _, rate, is_last = _PART.unpack(message)
        return cls(rate or None, is_last)


class Block(NamedTuple):
    """A block of a track, without the arrays. :class:`wholetrack.decoding.receiving.Received` describes the others.

    Attributes:
        n_windows: Number of windows.
        n_rows: Number of windows whose inputs are included.
        n_frames: Number of frames that these windows share; 0 if each window is included by itself.
        n_peaks: Number of peaks of the waveform.
        features_s: Time that the worker spent on the features, in seconds.
    """

    n_samples: int
    n_windows: int
    n_rows: int
    n_frames: int
    n_peaks: int
    peak: float
    cancelled_s: float
    features_s: float
    has_replaced: bool
    stalled: bool
    ended: bool

    def encode(self) -> bytes:
        """Return the message."""
        return _BLOCK.pack(_BLOCK_NAME, *self)

    @classmethod
    def decode(cls, message: bytes) -> Self:
        """Read a message.

        Raises:
            MessageError: If it is another message, or reports an error.
        """
        if message.startswith(_ERROR):
            raise MessageError(message.removeprefix(_ERROR).decode(errors="replace"))
        if len(message) != _BLOCK.size or not message.startswith(_BLOCK_NAME):
            raise MessageError(f"not a block: {message[:20]!r}")
        return cls(*_BLOCK.unpack(message)[1:])

    @property
    def has_arrays(self) -> bool:
        """Whether shared memory accompanies the message."""
        return bool(self.n_windows or self.n_peaks)


def error_message(text: str) -> bytes:
    """Return the message that reports an error."""
    return _ERROR + text.encode()[: MAX_MESSAGE_BYTES - len(_ERROR)]


def write_arrays(windows: ExtractedWindows) -> int:
    """Return a descriptor of sealed memory that contains the arrays. The caller closes it.

    Raises:
        OSError: If there is not enough memory, or too many descriptors.
    """
    arrays = (windows.start_s, windows.silent, windows.peaks, *windows.rows.arrays)
    memory = os.memfd_create("windows", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        offsets, size = _layout([array.nbytes for array in arrays])
        os.ftruncate(memory, size)
        for offset, array in zip(offsets, arrays, strict=True):
            _write(memory, memoryview(np.ascontiguousarray(array).reshape(-1).view("u1").data), offset)
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, SEALS)
    except BaseException:
        os.close(memory)
        raise
    return memory


def read_arrays(memory: int, block: Block, shapes: Sequence[tuple[int, ...]]) -> ExtractedWindows:
    """Return the arrays in sealed memory.

    The rows are not copied. They keep the memory alive, but not the descriptor.

    Args:
        memory: A descriptor of the memory.
        block: The message that accompanied it.
        shapes: Shape of one row of each input.

    Raises:
        MessageError: If the memory is not sealed, or has another size.
        OSError: If it cannot be mapped.
    """
    sizes = [8 * block.n_windows, block.n_windows, 4 * block.n_peaks]
    if block.n_frames:
        sizes += [4 * block.n_frames * math.prod(shape[1:]) for shape in shapes] + [8 * block.n_rows]
    else:
        sizes += [4 * block.n_rows * math.prod(shape) for shape in shapes]
    offsets, size = _layout(sizes)
    content = np.asarray(SealedMemory(memory, size))
    start_s, silent, peaks, *inputs = (content[offset : offset + n] for offset, n in zip(offsets, sizes, strict=True))
    # The small ones may be kept until the end of the track. They must not keep the others alive.
    return ExtractedWindows(
        start_s=start_s.view("<f8").copy(),
        silent=silent.view("?").copy(),
        peaks=peaks.view("<f4").copy(),
        rows=_windows_of(inputs, block, shapes),
    )


def _windows_of(arrays: Sequence[NDArray[np.uint8]], block: Block, shapes: Sequence[tuple[int, ...]]) -> Windows:
    if block.n_frames:
        ((window_frames, n_mels),) = shapes
        frames, starts = arrays[0].view("<f4"), arrays[1].view("<i8").copy()
        # The frames of several tracks follow one another in a run, so that a window must not reach beyond its own.
        limits = [0, *starts.tolist(), block.n_frames - window_frames]
        if sorted(limits) != limits:
            raise MessageError("the windows are out of order, or reach beyond the frames")
        return Strip(frames.reshape(block.n_frames, n_mels), starts, window_frames)
    rows = (array.view("<f4").reshape(block.n_rows, *shape) for array, shape in zip(arrays, shapes, strict=True))
    return Rows(tuple(rows))


def _layout(sizes: Sequence[int]) -> tuple[list[int], int]:
    """Return where arrays of these sizes begin, and the size of all; at least one byte, which can be mapped."""
    offsets, end = [], 0
    for size in sizes:
        offsets.append(end)
        end += size + -size % _ALIGNMENT
    return offsets, max(end, 1)


def _write(memory: int, content: memoryview, offset: int) -> None:
    # The sandbox does not allow pwrite.
    os.lseek(memory, offset, os.SEEK_SET)
    while content:
        content = content[os.write(memory, content) :]
