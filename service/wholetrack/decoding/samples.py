"""Turn the bytes that ffmpeg writes into mono samples. This module does no I/O."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wholetrack.decoding.mixing import MonoMixer
from wholetrack.decoding.resampling import Resampler
from wholetrack.decoding.validity import SampleCheck

BLOCK_SAMPLES = 1 << 18
"""Samples of a block: twelve seconds at 22,050 Hz. The scheduler counts these blocks."""

_BUFFER_BYTES = 1 << 20


class SampleStream:
    """The samples of one part of a file, from what one ffmpeg process writes.

    A caller reads into :attr:`free`, says with :meth:`received` how much it has read, and calls :meth:`take` when the
    buffer is full, or earlier::

        stream.received(pipe.readinto(stream.free))

    Args:
        rate: Sample rate of what ffmpeg writes in exact decoding, in Hz: the mean of all channels and the first one,
            which are mixed and resampled here. None in quick decoding, in which ffmpeg writes mono samples at
            ``sample_rate``.
        sample_rate: Sample rate of the samples in Hz.
    """

    def __init__(self, *, rate: int | None, sample_rate: int) -> None:
        self._mixer = None if rate is None else MonoMixer(rate)
        self._resampler = None if rate is None else Resampler(rate, sample_rate)
        self._n_channels = 1 if rate is None else 2
        self._frame_bytes = 4 * self._n_channels
        self._unit_bytes = self._frame_bytes * (self._mixer.cell if self._mixer else 1)
        self._validity = SampleCheck()
        self._incomplete = b""
        self._buffer: bytearray | None = None
        self._filled = 0

    @property
    def free(self) -> memoryview:
        """The part of the buffer that is not filled."""
        if self._buffer is None:
            # The samples that were taken from the buffer before may still be in use.
            self._buffer = bytearray(max(_BUFFER_BYTES, 2 * self._unit_bytes))
            self._buffer[: self._filled] = self._incomplete
        return memoryview(self._buffer)[self._filled :]

    def received(self, n_bytes: int) -> None:
        """Note that the next ``n_bytes`` of the buffer have been filled."""
        self._filled += n_bytes

    @property
    def is_full(self) -> bool:
        """Whether the buffer is full."""
        return not self.free

    def take(self, *, ended: bool) -> NDArray[np.float32]:
        """Return the samples received since the last call.

        Args:
            ended: Whether there will be no more.

        Returns:
            Mono samples with full scale at 1.0, ``[n_samples]``.
        """
        buffer, filled = self._buffer or self._incomplete, self._filled
        n_bytes = filled - filled % (self._frame_bytes if ended else self._unit_bytes)
        frames = np.frombuffer(buffer, dtype="<f4", count=n_bytes // 4).reshape(-1, self._n_channels)
        self._incomplete, self._filled, self._buffer = bytes(buffer[n_bytes:filled]), filled - n_bytes, None
        return self._validity.checked(self._mono(frames, ended=ended))

    @property
    def peak(self) -> float:
        """Largest absolute value so far."""
        return self._validity.peak

    @property
    def has_replaced(self) -> bool:
        """Whether samples that are not audio, such as NaN, were replaced."""
        return self._validity.has_replaced

    @property
    def cancelled_s(self) -> float:
        """Duration of the audio whose channels cancel each other, in seconds."""
        return self._mixer.cancelled_s if self._mixer else 0.0

    def _mono(self, frames: NDArray[np.float32], *, ended: bool) -> NDArray[np.float32]:
        if self._mixer is None or self._resampler is None:
            return frames[:, 0]
        mono = self._mixer.mix(frames)
        return self._resampler.finish(mono) if ended else self._resampler.push(mono)
