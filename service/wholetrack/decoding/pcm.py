"""Read the samples that ffmpeg writes to a pipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from wholetrack.decoding.pipes import OutputReader

_BLOCK_BYTES = 1 << 20


class PcmReader:
    """Reads interleaved float32 samples from the output of a process.

    Args:
        output: The output.
        n_channels: Number of channels.
        unit: Called when the first samples have arrived; returns the number of samples per channel of which all blocks
            but the last one are a multiple.

    Attributes:
        stalled: Whether the latest block is incomplete because the process wrote nothing, or too slowly.
        ended: Whether the latest block is the last one.
    """

    def __init__(self, output: OutputReader, *, n_channels: int, unit: Callable[[], int]) -> None:
        self._output = output
        self._n_channels = n_channels
        self._frame_bytes = 4 * n_channels
        self._unit = unit
        self.stalled = self.ended = False

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield blocks of about a megabyte, ``[n_samples, n_channels]``; shorter or empty ones while it stalls."""
        incomplete, unit_bytes = b"", 0
        while not self.ended:
            buffer = bytearray(max(_BLOCK_BYTES, 2 * unit_bytes))
            buffer[: len(incomplete)] = incomplete
            received, self.ended = self._output.read_into(memoryview(buffer)[len(incomplete) :])
            filled = len(incomplete) + received
            self.stalled = not self.ended and filled < len(buffer)
            if filled >= self._frame_bytes and not unit_bytes:
                unit_bytes = self._frame_bytes * self._unit()
            n_bytes = filled - filled % (self._frame_bytes if self.ended else unit_bytes or self._frame_bytes)
            incomplete = bytes(buffer[n_bytes:filled])
            samples = np.frombuffer(buffer, dtype="<f4", count=n_bytes // 4)
            yield samples.reshape(-1, self._n_channels)
