"""Decode a file to blocks of mono PCM, or to what a receiver makes of it.

Each part of a file gets an ffmpeg process of its own, and none outlives the ``with`` statement::

    with decoder.open(path, sample_rate=22050, max_duration_s=600) as decoding:
        for block in decoding.blocks():
            ...
        audio = decoding.summary()
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Generic, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import StreamInfo, TrackWarning, WarningCode
from wholetrack.decoding.audio_parts import find_audio_parts
from wholetrack.decoding.cpu_affinity import CpuAllocator
from wholetrack.decoding.ffmpeg import Ffmpeg
from wholetrack.decoding.ffmpeg_run import FfmpegRun
from wholetrack.decoding.limits import DecoderMemory, ffmpeg_limits
from wholetrack.decoding.memory_shortage import may_lack_memory
from wholetrack.decoding.outcome import Outcome, check_duration, decoded_stream, is_fault_of_file, track_warnings
from wholetrack.decoding.plan import THOROUGH, DecodeAgainError, DecodingPlan
from wholetrack.decoding.program_size import program_bytes
from wholetrack.decoding.receiving import Received, Receiver, SampleReceiver, T
from wholetrack.errors import ServiceError, StartupError
from wholetrack.sandbox.client import Sandbox
from wholetrack.sandbox.connection import LauncherError
from wholetrack.sandbox.layers import ALL_LAYERS, Layer
from wholetrack.sandbox.target import Program

# A whole recording below -60 dB of full scale is silence, or the remainder of channels that cancel each other.
_SILENT_PEAK = 1e-3


@dataclass(frozen=True, slots=True)
class DecodedAudio:
    """A description of a file that was decoded to its end.

    Attributes:
        stream: The audio stream, as the file describes it.
        duration_s: Duration of the decoded audio in seconds.
        warnings: Warnings about parts that may be missing.
    """

    stream: StreamInfo
    duration_s: float
    warnings: tuple[TrackWarning, ...]


class FfmpegDecoder:
    """Decodes files with sandboxed ffmpeg processes.

    Args:
        ffmpeg: The executable.
        cpus: Assigns a CPU to each process; None to let the kernel choose.
        layers: Layers of the sandbox to apply, as far as this machine supports them.

    Attributes:
        ffmpeg: The executable.
        sandbox: The sandbox that spawns the processes.

    Raises:
        StartupError: If the sandbox cannot be started.
    """

    def __init__(
        self, ffmpeg: Ffmpeg, *, cpus: CpuAllocator | None = None, layers: Collection[Layer] = ALL_LAYERS
    ) -> None:
        self.ffmpeg = ffmpeg
        try:
            self.sandbox = Sandbox(Program(ffmpeg.path), wanted=layers)
            self._program_bytes = program_bytes(ffmpeg, self.sandbox)
        except (LauncherError, OSError) as error:
            raise StartupError(f"ffmpeg's sandbox cannot be started: {error}") from error
        self._cpus = cpus

    def close(self) -> None:
        """Kill all ffmpeg processes and stop the sandbox."""
        self.sandbox.close()

    def open(
        self, path: Path, *, sample_rate: int, max_duration_s: float, plan: DecodingPlan = THOROUGH
    ) -> Decoding[NDArray[np.float32]]:
        """Start decoding a file to samples: :meth:`open_with` a receiver of mono samples, ``[n_samples]``."""
        receiver = SampleReceiver(sample_rate=sample_rate)
        return self.open_with(receiver, path, sample_rate=sample_rate, max_duration_s=max_duration_s, plan=plan)

    def open_with(
        self, receiver: Receiver[T], path: Path, *, sample_rate: int, max_duration_s: float, plan: DecodingPlan
    ) -> Decoding[T]:
        """Start decoding a file.

        Args:
            receiver: Receives the output of ffmpeg.
            path: A seekable file. It must not change or disappear while it is being decoded.
            sample_rate: Sample rate of the output in Hz.
            max_duration_s: Longer recordings are rejected while they are being decoded.
            plan: How thoroughly to decode it.

        Raises:
            ServiceError: ``internal_error`` if ffmpeg cannot be started, ``unsupported_media`` if it would decode the
                file to noise.
            OSError: If the machine is out of processes or descriptors, or the file cannot be read.
        """
        return Decoding(
            self.ffmpeg,
            path,
            receiver,
            sample_rate=sample_rate,
            max_duration_s=max_duration_s,
            plan=plan,
            program_bytes=self._program_bytes,
            sandbox=self.sandbox,
            cpus=self._cpus,
        )


class Decoding(Generic[T]):
    """Decodes the parts of a file one after the other. Leaving it as a context manager kills ffmpeg.

    Blocks are read by one thread. :meth:`kill` can be called from any thread and ends the output.

    Attributes:
        stalled: Whether the latest block is incomplete because ffmpeg wrote nothing, or too slowly.
        ended: Whether the latest block is the last one.
        n_samples: Number of samples decoded so far.
    """

    def __init__(
        self,
        ffmpeg: Ffmpeg,
        path: Path,
        receiver: Receiver[T],
        *,
        sample_rate: int,
        max_duration_s: float,
        plan: DecodingPlan,
        program_bytes: int,
        sandbox: Sandbox,
        cpus: CpuAllocator | None,
    ) -> None:
        self._ffmpeg = ffmpeg
        self._path = path
        self._receiver = receiver
        self._sample_rate = sample_rate
        self._max_duration_s = max_duration_s
        self._sandbox = sandbox
        self._plan = plan
        self._limits = ffmpeg_limits(max_duration_s, plan.memory, program_bytes=program_bytes)
        self._was_killed = False
        self._outcomes: list[Outcome] = []
        self.stalled = self.ended = False
        self.n_samples = 0
        self._peak = 0.0
        found = find_audio_parts(path)
        self._parts, self._is_truncated = found.parts, found.is_truncated
        self._cpus = cpus
        self._cpu = cpus.acquire() if cpus else None
        try:
            self._run = self._start(0)
        except BaseException:
            self._release_cpu()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._run.__exit__(kind, error, trace)
        finally:
            self._release_cpu()

    def kill(self) -> None:
        """Kill ffmpeg, and start no further process."""
        self._was_killed = True
        self._run.kill()
        self._receiver.abort()

    def blocks(self) -> Iterator[T]:
        """Yield what the receiver made of the audio.

        Yields:
            The contents of blocks of about 262,144 samples. While ffmpeg stalls, and at the end of a part, blocks are
            shorter or empty.

        Raises:
            ServiceError: ``audio_too_long`` as soon as more audio than allowed was decoded; ``unsupported_media`` as
                soon as the sample rate is known to be impossible.
            DecodeAgainError: As soon as quick decoding turns out not to be enough.
        """
        for index in range(len(self._parts)):
            if index:
                self._start_next(index)
            for block in self._run.blocks():
                self._check_format()
                if block.ended:
                    self._finish_part(block)
                self.n_samples += block.n_samples
                check_duration(self.n_samples / self._sample_rate, self._max_duration_s)
                self.stalled = block.stalled
                self.ended = block.ended and (self._was_killed or index + 1 == len(self._parts))
                yield block.content
            if self._was_killed:
                return

    def summary(self) -> DecodedAudio:
        """Return a description of the decoded audio. Call it after the last block.

        Raises:
            ServiceError: If nothing was decoded, or ffmpeg did not reach its end: ``unsupported_media``,
                ``undecodable_audio``, ``no_audio_stream``, ``empty_audio`` or ``internal_error``.
            DecodeAgainError: If another plan may lead to another result.
        """
        decoded: list[Outcome] = []
        streams: list[StreamInfo] = []
        failures: list[ServiceError] = []
        for outcome in self._outcomes:
            try:
                streams.append(decoded_stream(outcome))
                decoded.append(outcome)
            except ServiceError as error:
                if not is_fault_of_file(error):
                    raise
                failures.append(error)
        warnings = tuple(track_warnings(decoded, n_failed=len(failures), is_truncated=self._is_truncated))
        self._check_memory(is_complete=all(warning.code is WarningCode.CANCELLED_CHANNELS for warning in warnings))
        if not decoded:
            raise failures[0]
        self._check_silence()
        return DecodedAudio(streams[0], sum(outcome.duration_s for outcome in decoded), warnings)

    def _finish_part(self, last: Received[T]) -> None:
        """Wait for ffmpeg to end, and check once more that quick decoding was enough.

        Raises:
            DecodeAgainError: If it was not.
        """
        outcome = self._run.outcome()
        self._outcomes.append(outcome)
        self._peak = max(self._peak, last.peak)
        if self._was_killed:
            return
        # Only now the log has been read to its end.
        self._check_format()
        if outcome.duration_s > 0 and not self._run.log.n_formats and not self._plan.exact:
            self._decode_exactly("ffmpeg does not log its filters")

    def _start(self, index: int) -> FfmpegRun[T]:
        return FfmpegRun(
            self._ffmpeg,
            self._sandbox,
            self._path,
            self._parts[index],
            sample_rate=self._sample_rate,
            limits=self._limits,
            cpu=self._cpu,
            exact=self._plan.exact,
            receiver=self._receiver,
            is_last=index + 1 == len(self._parts),
        )

    def _start_next(self, index: int) -> None:
        with self._run:
            pass
        self._run = self._start(index)
        if self._was_killed:
            self._run.kill()

    def _check_format(self) -> None:
        """Check that quick decoding was enough so far.

        Raises:
            DecodeAgainError: If samples were lost where the format changed, or the channels may cancel each other.
        """
        if self._plan.exact:
            return
        if self._run.log.n_formats > 1:
            self._decode_exactly("the format changes")
        if self._run.log.out_of_phase:
            self._decode_exactly("the channels are out of phase")

    def _check_silence(self) -> None:
        """Check whether the whole recording is silent because its channels cancel each other.

        Raises:
            DecodeAgainError: If that is possible. The phase meter misses short sounds between digital silence.
        """
        if not self._plan.exact and self._peak < _SILENT_PEAK:
            self._decode_exactly("the recording is silent")

    def _decode_exactly(self, reason: str) -> NoReturn:
        raise DecodeAgainError(replace(self._plan, exact=True), reason)

    def _check_memory(self, *, is_complete: bool) -> None:
        """Check that ffmpeg had enough memory.

        Raises:
            DecodeAgainError: If more memory may lead to another result.
        """
        if self._plan.memory is DecoderMemory.ORDINARY and any(
            may_lack_memory(
                self._path,
                status=outcome.status,
                exit_signal=outcome.log.exit_signal,
                decoded_s=outcome.duration_s,
                is_complete=is_complete,
                data_bytes=outcome.data_bytes,
            )
            for outcome in self._outcomes
            if not outcome.was_killed
        ):
            raise DecodeAgainError(replace(self._plan, memory=DecoderMemory.LARGE), "ffmpeg may lack memory")

    def _release_cpu(self) -> None:
        if self._cpus and self._cpu is not None:
            self._cpus.release(self._cpu)
            self._cpu = None
