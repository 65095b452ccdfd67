"""Read the samples that ffmpeg writes to a pipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from wholetrack.decoding.pipes import OutputReader

_CHANNELS = 2
_FRAME_BYTES = 4 * _CHANNELS
_BUFFER_BYTES = 1 << 20


class PcmReader:
    """Reads samples of two channels, interleaved float32, from the output of a process.

    Args:
        output: The output.
        unit: Called when the first samples have arrived; returns the number of samples per channel of which all blocks
            but the last one are a multiple.

    Attributes:
        stalled: Whether the latest block is incomplete because the process wrote nothing, or too slowly.
        ended: Whether the latest block is the last one.
    """

    def __init__(self, output: OutputReader, unit: Callable[[], int]) -> None:
        self._output = output
        self._unit = unit
        self.stalled = self.ended = False

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield blocks of about a megabyte, ``[n_samples, 2]``; shorter or empty ones while the process stalls.

        A block is valid until the next one is requested, because all of them share a buffer.
        """
        buffer = bytearray(_BUFFER_BYTES)
        filled, unit_bytes = 0, 0
        while not self.ended:
            received, self.ended = self._output.read_into(memoryview(buffer)[filled:])
            filled += received
            self.stalled = not self.ended and filled < len(buffer)
            if filled >= _FRAME_BYTES and not unit_bytes:
                unit_bytes = _FRAME_BYTES * self._unit()
                buffer.extend(bytes(max(0, 2 * unit_bytes - len(buffer))))
            n_bytes = filled - filled % (_FRAME_BYTES if self.ended else unit_bytes or _FRAME_BYTES)
            samples = np.frombuffer(buffer, dtype="<f4", count=n_bytes // 4)
            yield samples.reshape(-1, _CHANNELS)
            del samples
            filled -= n_bytes
            buffer[:filled] = buffer[n_bytes : n_bytes + filled]
