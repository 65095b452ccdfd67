"""Samples that a client sends while they are predicted. They need no decoder, only mixing and resampling."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import StreamInfo, TrackWarning, WarningCode
from wholetrack.decoding.decoder import DecodedAudio
from wholetrack.decoding.mixing import MonoMixer
from wholetrack.decoding.outcome import cancelled_channels, check_duration
from wholetrack.decoding.resampling import Resampler
from wholetrack.decoding.validity import SampleCheck
from wholetrack.errors import ErrorKind, ServiceError

# Windows are classified at most this long after their last sample has arrived, if nothing else delays them. Shorter
# blocks take more time for the same audio.
_MIN_BLOCK_S = 0.25
_MAX_BLOCK_S = 12.0


class PcmEncoding(StrEnum):
    """How a sample is encoded; both are little endian."""

    FLOAT32 = "float32"
    INT16 = "int16"


_TYPES = {PcmEncoding.FLOAT32: "<f4", PcmEncoding.INT16: "<i2"}
_FFMPEG_NAMES = {PcmEncoding.FLOAT32: "f32le", PcmEncoding.INT16: "s16le"}
_INT16_SCALE = np.float32(1 / 32768)


@dataclass(frozen=True, slots=True)
class PcmFormat:
    """The format of live audio: interleaved samples without a container.

    Attributes:
        encoding: Encoding of each sample.
        sample_rate_hz: Sample rate in Hz.
        channels: Number of channels.
    """

    encoding: PcmEncoding
    sample_rate_hz: int
    channels: int

    @property
    def frame_bytes(self) -> int:
        """Size of one sample of every channel, in bytes."""
        return np.dtype(_TYPES[self.encoding]).itemsize * self.channels

    @property
    def stream(self) -> StreamInfo:
        """A description in ffmpeg's terms, as for a file."""
        name = _FFMPEG_NAMES[self.encoding]
        return StreamInfo(f"pcm_{name}", name, self.sample_rate_hz, self.channels)

    def frames(self, data: bytes) -> NDArray[np.float32]:
        """Return the samples, ``[n_samples, channels]``, with full scale at 1."""
        samples = np.frombuffer(data, dtype=_TYPES[self.encoding]).reshape(-1, self.channels)
        if self.encoding is PcmEncoding.INT16:
            return samples.astype(np.float32) * _INT16_SCALE
        return samples.astype(np.float32, copy=False)


class LivePcm:
    """A buffer between the client, whose data one thread adds, and the thread of the track.

    Args:
        audio: The format of the data.
        on_taken: Called in the thread of the track after it has taken data.

    Attributes:
        audio: The format of the data.
        n_buffered: Number of bytes that the track has not taken yet.
        waited_s: How long the track has waited for data, in seconds.
    """

    def __init__(self, audio: PcmFormat, *, on_taken: Callable[[], None] = lambda: None) -> None:
        self.audio = audio
        self.waited_s = 0.0
        self._on_taken = on_taken
        self._changed = threading.Condition()
        self._parts: deque[bytes] = deque()
        self.n_buffered = 0
        self._ended = False

    @property
    def buffered_s(self) -> float:
        """Duration of the audio that the track has not taken yet, in seconds."""
        return self.n_buffered / self._bytes_per_s

    def put(self, data: bytes) -> None:
        """Add a whole number of frames."""
        with self._changed:
            self._parts.append(data)
            self.n_buffered += len(data)
            self._changed.notify_all()

    def end(self) -> None:
        """Note that nothing follows."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Wait until that much audio can be taken, or no more follows."""
        began = time.monotonic()
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self.buffered_s >= seconds)
        self.waited_s += time.monotonic() - began

    def take(self, max_s: float) -> tuple[bytes, bool]:
        """Return what is there, at most about ``max_s`` seconds, and whether it is the last of all."""
        max_bytes, taken, n_taken = max_s * self._bytes_per_s, [], 0
        with self._changed:
            while self._parts and n_taken < max_bytes:
                taken.append(self._parts.popleft())
                n_taken += len(taken[-1])
            self.n_buffered -= n_taken
            is_last = self._ended and not self._parts
        if n_taken:
            self._on_taken()
        return b"".join(taken), is_last

    @property
    def _bytes_per_s(self) -> int:
        return self.audio.frame_bytes * self.audio.sample_rate_hz


class LiveDecoding:
    """Turns live audio into mono samples, with the methods of :class:`~wholetrack.decoding.decoder.Decoding`.

    Channels are mixed as in exact decoding, second by second, so that a window of several channels is complete up to a
    second later than one of a single channel.

    Args:
        source: The audio.
        sample_rate: Sample rate of the output in Hz.
        max_duration_s: Longer recordings are rejected while they arrive.

    Attributes:
        stalled: Always false: a track of live audio gives its slot back before it waits.
        ended: Whether the latest block is the last one.
        n_samples: Number of samples returned so far.
    """

    def __init__(self, source: LivePcm, *, sample_rate: int, max_duration_s: float) -> None:
        self._source = source
        self._sample_rate = sample_rate
        self._max_duration_s = max_duration_s
        rate = source.audio.sample_rate_hz
        self._mixer = MonoMixer(rate) if source.audio.channels > 1 else None
        self._unmixed = np.zeros((0, 2), dtype=np.float32)
        self._resampler = Resampler(rate, sample_rate)
        self._validity = SampleCheck()
        self.stalled = self.ended = False
        self.n_samples = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def kill(self) -> None:
        """End the audio. Any thread may call this."""
        self._source.end()

    @property
    def starved(self) -> bool:
        """Whether there is too little audio for another block."""
        return self._source.buffered_s < _MIN_BLOCK_S

    def wait(self) -> None:
        """Wait until there is enough audio for another block, or no more follows."""
        self._source.wait(_MIN_BLOCK_S)

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield the samples that have arrived, mono, ``[n_samples]``. Does not wait: a block may be empty.

        Raises:
            ServiceError: ``audio_too_long`` as soon as more audio than allowed has arrived.
        """
        while not self.ended:
            data, self.ended = self._source.take(_MAX_BLOCK_S)
            mono = self._mono(self._source.audio.frames(data))
            resampled = self._resampler.finish(mono) if self.ended else self._resampler.push(mono)
            samples = self._validity.checked(resampled)
            self.n_samples += len(samples)
            check_duration(self.n_samples / self._sample_rate, self._max_duration_s)
            yield samples

    def summary(self) -> DecodedAudio:
        """Return a description of the audio. Call it after the last block.

        Raises:
            ServiceError: ``empty_audio`` if there was none.
        """
        if not self.n_samples:
            raise ServiceError(ErrorKind.EMPTY_AUDIO, "No audio was sent. Send samples before the end.")
        return DecodedAudio(self._source.audio.stream, self.n_samples / self._sample_rate, tuple(self._warnings()))

    def _mono(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._mixer is None:
            return frames[:, 0]
        with np.errstate(over="ignore", invalid="ignore"):
            pairs = np.stack([frames.mean(axis=1), frames[:, 0]], axis=1)
        pairs = np.concatenate([self._unmixed, pairs])
        n_mixed = len(pairs) if self.ended else len(pairs) - len(pairs) % self._mixer.cell
        self._unmixed = pairs[n_mixed:].copy()
        return self._mixer.mix(pairs[:n_mixed])

    def _warnings(self) -> Iterator[TrackWarning]:
        if self._validity.has_replaced:
            yield TrackWarning(
                WarningCode.DAMAGED, "Some samples were not numbers or far too large. They were replaced or clipped."
            )
        if self._mixer and self._mixer.cancelled_s:
            yield cancelled_channels(self._mixer.cancelled_s)
