"""Decode a file to blocks of mono PCM.

Each file gets an ffmpeg process of its own, which never outlives the ``with`` statement::

    with decoder.open(path, sample_rate=22050, max_duration_s=600) as decoding:
        for block in decoding.blocks():
            ...
        audio = decoding.summary()
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import StreamInfo, TrackWarning
from wholetrack.decoding.audio_parts import AudioPart, find_audio_parts
from wholetrack.decoding.cpu_affinity import CpuAllocator
from wholetrack.decoding.ffmpeg import Ffmpeg
from wholetrack.decoding.ffmpeg_run import FfmpegRun
from wholetrack.decoding.outcome import Outcome, decoded_stream, is_fault_of_file, track_warnings
from wholetrack.errors import ErrorKind, ServiceError, StartupError
from wholetrack.sandbox.client import Sandbox
from wholetrack.sandbox.connection import LauncherError
from wholetrack.sandbox.layers import ALL_LAYERS, Layer

# Twelve seconds at 22,050 Hz. The scheduler counts these blocks.
_BLOCK_SAMPLES = 1 << 18


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
    """Decodes files, each with a sandboxed ffmpeg process of its own.

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
            self.sandbox = Sandbox(ffmpeg.path, wanted=layers)
        except (LauncherError, OSError) as error:
            raise StartupError(f"ffmpeg's sandbox cannot be started: {error}") from error
        self._cpus = cpus

    def close(self) -> None:
        """Kill all ffmpeg processes and stop the sandbox."""
        self.sandbox.close()

    def open(self, path: Path, *, sample_rate: int, max_duration_s: float) -> Decoding:
        """Start decoding a file.

        Args:
            path: A seekable file. It must not change or disappear while it is being decoded.
            sample_rate: Sample rate of the output in Hz.
            max_duration_s: Longer recordings are rejected while they are being decoded.

        Raises:
            ServiceError: ``internal_error`` if ffmpeg cannot be started.
            OSError: If the machine is out of processes, threads or descriptors, or the file cannot be read.
        """
        return Decoding(
            self.ffmpeg,
            path,
            sample_rate=sample_rate,
            max_duration_s=max_duration_s,
            sandbox=self.sandbox,
            cpus=self._cpus,
        )


class Decoding:
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
        *,
        sample_rate: int,
        max_duration_s: float,
        sandbox: Sandbox,
        cpus: CpuAllocator | None,
    ) -> None:
        self._ffmpeg = ffmpeg
        self._path = path
        self._sample_rate = sample_rate
        self._max_duration_s = max_duration_s
        self._sandbox = sandbox
        self._was_killed = False
        self._outcomes: list[Outcome] = []
        self.stalled = self.ended = False
        self.n_samples = 0
        found = find_audio_parts(path)
        self._parts, self._is_truncated = found.parts, found.is_truncated
        self._cpus = cpus
        self._cpu = cpus.acquire() if cpus else None
        try:
            self._run = self._start(self._parts[0], large_frames=ffmpeg.gains_from_large_frames)
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

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield the samples, mono with full scale at 1.0.

        Yields:
            Blocks of about 262,144 samples, ``[n_samples]``. While ffmpeg stalls, blocks are shorter or empty.

        Raises:
            ServiceError: ``audio_too_long`` as soon as more audio than allowed was decoded; ``unsupported_media`` as
                soon as the sample rate is known to be impossible.
        """
        pending: list[NDArray[np.float32]] = []
        n_pending = 0
        for samples in self._samples():
            pending.append(samples)
            n_pending += len(samples)
            self.n_samples += len(samples)
            self._check_duration()
            self.stalled = self._run.stalled
            if self.stalled or n_pending >= _BLOCK_SAMPLES:
                yield np.concatenate(pending)
                pending, n_pending = [], 0
        self.stalled, self.ended = False, True
        if n_pending:
            yield np.concatenate(pending)

    def summary(self) -> DecodedAudio:
        """Return a description of the decoded audio. Call it after the last block.

        Raises:
            ServiceError: If nothing was decoded, or ffmpeg did not reach its end: ``unsupported_media``,
                ``undecodable_audio``, ``no_audio_stream``, ``empty_audio`` or ``internal_error``.
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
        if not decoded:
            raise failures[0]
        warnings = track_warnings(decoded, n_failed=len(failures), is_truncated=self._is_truncated)
        return DecodedAudio(streams[0], sum(outcome.duration_s for outcome in decoded), tuple(warnings))

    def _samples(self) -> Iterator[NDArray[np.float32]]:
        """Yield the samples of all parts."""
        for index, part in enumerate(self._parts):
            large_frames = self._ffmpeg.gains_from_large_frames
            if index:
                self._replace_run(part, large_frames=large_frames)
            n_yielded = 0
            for samples in self._run.blocks():
                if large_frames and self._run.log.reconfigured:
                    break
                n_yielded += len(samples)
                yield samples
            else:
                self._outcomes.append(self._run.outcome())
                if self._was_killed:
                    return
                continue
            # The large frames lost samples at a change of the format. Everything before this block is complete.
            self._replace_run(part, large_frames=False)
            for samples in self._run.blocks():
                n_skipped = min(n_yielded, len(samples))
                n_yielded -= n_skipped
                yield samples[n_skipped:]
            self._outcomes.append(self._run.outcome())

    def _start(self, part: AudioPart, *, large_frames: bool) -> FfmpegRun:
        return FfmpegRun(
            self._ffmpeg,
            self._sandbox,
            self._path,
            part,
            sample_rate=self._sample_rate,
            max_duration_s=self._max_duration_s,
            cpu=self._cpu,
            large_frames=large_frames,
        )

    def _replace_run(self, part: AudioPart, *, large_frames: bool) -> None:
        with self._run:
            pass
        self._run = self._start(part, large_frames=large_frames)
        if self._was_killed:
            self._run.kill()

    def _check_duration(self) -> None:
        if self.n_samples > int(self._max_duration_s * self._sample_rate):
            raise ServiceError(
                ErrorKind.AUDIO_TOO_LONG,
                f"The recording is longer than the limit of {self._max_duration_s:g} seconds. "
                "Send a shorter one, or ask the operator to raise max_duration_s.",
            )

    def _release_cpu(self) -> None:
        if self._cpus and self._cpu is not None:
            self._cpus.release(self._cpu)
            self._cpu = None
