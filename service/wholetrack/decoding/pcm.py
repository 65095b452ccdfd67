"""Read the samples that ffmpeg writes to a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

import numpy as np
from numpy.typing import NDArray

from wholetrack.decoding.pipes import read_into

_SAMPLE_BYTES = 4
_BLOCK_BYTES = 1 << 20
# Float formats can hold any number. Above this one, the power of a mel band overflows float32. Audio stays below 1, or
# below 32,768 if integers were written as floats.
_MAX_AMPLITUDE = 1e6


class PcmReader:
    """Reads mono float32 samples from a pipe.

    Args:
        pipe: An unbuffered read end.

    Attributes:
        n_samples: Number of samples read so far.
        stalled: Whether the latest block is incomplete because the writer wrote nothing, or too slowly.
        ended: Whether the latest block is the last one.
        has_invalid_samples: Whether NaN, infinite or implausibly large samples were read and replaced.
    """

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self.n_samples = 0
        self.stalled = self.ended = self.has_invalid_samples = False

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield blocks of up to 262,144 samples, ``[n_samples]``; shorter or empty ones while the writer stalls."""
        incomplete_sample = b""
        while not self.ended:
            buffer = bytearray(_BLOCK_BYTES)
            buffer[: len(incomplete_sample)] = incomplete_sample
            received, self.ended = read_into(self._pipe, memoryview(buffer)[len(incomplete_sample) :])
            filled = len(incomplete_sample) + received
            self.stalled = not self.ended and filled < _BLOCK_BYTES
            n_samples = filled // _SAMPLE_BYTES
            incomplete_sample = bytes(buffer[n_samples * _SAMPLE_BYTES : filled])
            if self.ended and not n_samples:
                return
            self.n_samples += n_samples
            yield self._without_invalid_samples(np.frombuffer(buffer, dtype="<f4", count=n_samples))

    def _without_invalid_samples(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """Replace NaN with silence, and clip infinite and implausibly large samples."""
        if np.abs(block).max(initial=0.0) <= _MAX_AMPLITUDE:
            return block
        self.has_invalid_samples = True
        return np.clip(np.nan_to_num(block), -_MAX_AMPLITUDE, _MAX_AMPLITUDE)
