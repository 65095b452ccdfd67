"""Who receives what ffmpeg writes: the samples themselves, or what is computed from them elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import IO, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from wholetrack.decoding.pipes import BLOCK_TIMEOUT_S, LogReader
from wholetrack.decoding.samples import BLOCK_SAMPLES, SampleStream

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Received(Generic[T]):
    """A block of a track, and what is known about the part of the file that it belongs to.

    Attributes:
        content: What was received or computed.
        n_samples: Number of samples of the block.
        peak: Largest absolute value of a sample of the part so far, where full scale is 1.
        cancelled_s: Duration of the audio of the part so far whose channels cancel each other, in seconds.
        has_replaced: Whether samples of the part so far were not audio, such as NaN.
        stalled: Whether the block is incomplete because ffmpeg wrote nothing, or too slowly.
        ended: Whether the part ends with this block.
    """

    content: T
    n_samples: int = 0
    peak: float = 0.0
    cancelled_s: float = 0.0
    has_replaced: bool = False
    stalled: bool = False
    ended: bool = False


class Receiver(Protocol[T]):
    """Receives the output of the ffmpeg processes of one track, one after the other.

    Attributes:
        nothing: The content of an empty block.
    """

    nothing: T

    def begin(self, stdout: IO[bytes], *, rate: int | None, is_last: bool) -> None:
        """Begin with the output of the next process.

        Args:
            stdout: Unbuffered read end of its output. The receiver may close it.
            rate: Sample rate in exact decoding, None in quick decoding; see :class:`SampleStream`.
            is_last: Whether no process follows.
        """

    def receive(self, log: LogReader) -> Received[T]:
        """Return the next block, and read the log in the meantime.

        A block is complete if it has about 262,144 samples. It is shorter or empty at the end of the output, when no
        data arrives for 0.2 seconds, and when one second has passed.
        """

    def abort(self) -> None:
        """Make :meth:`receive` return or raise soon, because the process was killed. Any thread may call this."""


class SampleReceiver:
    """Receives the samples themselves. See :class:`Receiver` for the methods.

    Args:
        sample_rate: Sample rate of the samples in Hz.
    """

    def __init__(self, *, sample_rate: int) -> None:
        self.nothing: NDArray[np.float32] = np.zeros(0, dtype=np.float32)
        self._sample_rate = sample_rate

    def begin(self, stdout: IO[bytes], *, rate: int | None, is_last: bool) -> None:  # noqa: ARG002
        """Begin with the output of the next process."""
        self._stdout = stdout
        self._stream = SampleStream(rate=rate, sample_rate=self._sample_rate)
        self._ended = False

    def receive(self, log: LogReader) -> Received[NDArray[np.float32]]:
        """Return the next block of samples, ``[n_samples]``."""
        taken: list[NDArray[np.float32]] = []
        stalled = False
        while not (stalled or self._ended) and sum(map(len, taken)) < BLOCK_SAMPLES:
            stalled = not self._fill(log)
            taken.append(self._stream.take(ended=self._ended))
        samples = np.concatenate(taken)
        return Received(
            content=samples,
            n_samples=len(samples),
            peak=self._stream.peak,
            cancelled_s=self._stream.cancelled_s,
            has_replaced=self._stream.has_replaced,
            stalled=stalled,
            ended=self._ended,
        )

    def abort(self) -> None:
        """Do nothing, because the output ends when its process is killed."""

    def _fill(self, log: LogReader) -> bool:
        """Fill the buffer; return whether it is full or the output has ended."""
        deadline = time.monotonic() + BLOCK_TIMEOUT_S
        while not (self._ended or self._stream.is_full):
            if not log.wait_for(self._stdout.fileno(), deadline=deadline):
                return False
            n_bytes: int = self._stdout.readinto(self._stream.free)  # type: ignore[attr-defined]
            self._stream.received(n_bytes)
            self._ended = not n_bytes
        return True
