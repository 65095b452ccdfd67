"""Decode a file to blocks of mono PCM.

Each file gets an ffmpeg process of its own, which never outlives the ``with`` statement::

    with decoder.open(path, sample_rate=22050, max_duration_s=600) as decoding:
        for block in decoding.blocks():
            ...
        audio = decoding.summary()
"""

from __future__ import annotations

import errno
import fcntl
import secrets
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import StreamInfo, TrackWarning
from wholetrack.decoding.cpu_affinity import CpuAllocator
from wholetrack.decoding.ffmpeg import Ffmpeg
from wholetrack.decoding.ffmpeg_log import FfmpegLog
from wholetrack.decoding.limits import DecoderMemory, allowed_cpu_s, ffmpeg_limits
from wholetrack.decoding.memory_shortage import MemoryShortageError, may_lack_memory
from wholetrack.decoding.outcome import Outcome, check_sample_rate, decoded_stream, decoder_stopped, track_warnings
from wholetrack.decoding.pcm import PcmReader
from wholetrack.decoding.pipes import BoundedReader
from wholetrack.decoding.program_size import program_bytes
from wholetrack.errors import ErrorKind, ServiceError, StartupError
from wholetrack.sandbox.client import Sandbox
from wholetrack.sandbox.connection import LauncherError
from wholetrack.sandbox.layers import ALL_LAYERS, Layer
from wholetrack.sandbox.process import SandboxedProcess
from wholetrack.sandbox.protocol import INPUT_FD

# Nothing from the service's environment, which holds secrets. One malloc arena for all threads, because each arena of
# glibc reserves 64 MiB of the limited address space.
_ENVIRONMENT = {"LC_ALL": "C", "AV_LOG_FORCE_NOCOLOR": "1", "MALLOC_ARENA_MAX": "1"}
_PIPE_BYTES = 1 << 20
_STDERR_BYTES = 256 * 1024
_EXIT_TIMEOUT_S = 5.0
# The CPU limit is raised in steps of at least this, not with every block.
_CPU_LIMIT_STEP_S = 5.0


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
            self._program_bytes = program_bytes(ffmpeg, self.sandbox)
        except (LauncherError, OSError) as error:
            raise StartupError(f"ffmpeg's sandbox cannot be started: {error}") from error
        self._cpus = cpus

    def close(self) -> None:
        """Kill all ffmpeg processes and stop the sandbox."""
        self.sandbox.close()

    def open(
        self, path: Path, *, sample_rate: int, max_duration_s: float, memory: DecoderMemory = DecoderMemory.LARGE
    ) -> Decoding:
        """Start decoding a file.

        Args:
            path: A seekable file. It must not change or disappear while it is being decoded.
            sample_rate: Sample rate of the output in Hz.
            max_duration_s: Longer recordings are rejected while they are being decoded.
            memory: How much memory ffmpeg may use.

        Raises:
            ServiceError: ``internal_error`` if ffmpeg cannot be started.
            OSError: If the machine is out of processes, threads or descriptors, or the file cannot be read.
        """
        return Decoding(
            self.ffmpeg,
            path,
            sample_rate=sample_rate,
            max_duration_s=max_duration_s,
            memory=memory,
            program_bytes=self._program_bytes,
            sandbox=self.sandbox,
            cpus=self._cpus,
        )


class Decoding:
    """A running ffmpeg process. Leaving it as a context manager kills the process.

    Blocks are read by one thread. :meth:`kill` can be called from any thread and ends the output.
    """

    def __init__(
        self,
        ffmpeg: Ffmpeg,
        path: Path,
        *,
        sample_rate: int,
        max_duration_s: float,
        memory: DecoderMemory,
        program_bytes: int,
        sandbox: Sandbox,
        cpus: CpuAllocator | None,
    ) -> None:
        self._path = path
        self._sample_rate = sample_rate
        self._max_duration_s = max_duration_s
        self._memory = memory
        self._program_bytes = program_bytes
        self._data_bytes = 0
        self._was_killed = False
        self._is_rate_checked = False
        self._marker = f"{secrets.token_hex(8)}:"
        self._cpu_limit_s = allowed_cpu_s(0.0)
        self._cpus = cpus
        self._cpu = cpus.acquire() if cpus else None
        try:
            self._process = self._spawn(ffmpeg, sandbox)
            self._stderr = _read_stderr(self._process)
        except BaseException:
            self._release_cpu()
            raise
        self._pcm = PcmReader(self._process.stdout)
        # A larger pipe means fewer switches between ffmpeg and the reader. The kernel can refuse it: it limits how much
        # pipe memory a user has.
        with suppress(OSError):
            fcntl.fcntl(self._process.stdout.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.kill()
            self._process.close()
        finally:
            self._release_cpu()
            self._stderr.close()

    @property
    def stalled(self) -> bool:
        """Whether the latest block is incomplete because ffmpeg wrote nothing, or too slowly."""
        return self._pcm.stalled

    @property
    def ended(self) -> bool:
        """Whether the latest block is the last one."""
        return self._pcm.ended

    def kill(self) -> None:
        """Kill ffmpeg if it is still running."""
        self._was_killed = True
        self._process.kill()

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield the samples, mono with full scale at 1.0.

        Yields:
            Blocks of up to 262,144 samples, ``[n_samples]``. While ffmpeg stalls, blocks are shorter or empty.

        Raises:
            ServiceError: ``audio_too_long`` as soon as more audio than allowed was decoded; ``unsupported_media`` as
                soon as the sample rate is known to be too low.
        """
        max_samples = int(self._max_duration_s * self._sample_rate)
        for block in self._pcm.blocks():
            self._raise_cpu_limit()
            self._data_bytes = max(self._data_bytes, self._process.data_bytes())
            self._check_sample_rate()
            if self._pcm.n_samples > max_samples:
                raise ServiceError(
                    ErrorKind.AUDIO_TOO_LONG,
                    f"The recording is longer than the limit of {self._max_duration_s:g} seconds. "
                    "Send a shorter one, or ask the operator to raise max_duration_s.",
                )
            yield block

    def summary(self) -> DecodedAudio:
        """Return a description of the decoded audio. Call it after the last block.

        Raises:
            ServiceError: If nothing was decoded, or ffmpeg did not reach its end: ``unsupported_media``,
                ``undecodable_audio``, ``no_audio_stream``, ``empty_audio`` or ``internal_error``.
            MemoryShortageError: If ordinary memory may not have been enough for this file.
        """
        try:
            status = self._process.wait(_EXIT_TIMEOUT_S)
        except TimeoutError:
            self.kill()
            status = self._process.wait()
        stderr = self._stderr.close()
        outcome = Outcome(
            path=self._path,
            status=status,
            stderr=stderr,
            log=FfmpegLog.parse(stderr, self._marker),
            duration_s=self._decoded_s(),
            was_killed=self._was_killed,
            has_invalid_samples=self._pcm.has_invalid_samples,
        )
        warnings = tuple(track_warnings(outcome))
        self._check_memory(outcome, is_complete=not warnings)
        return DecodedAudio(decoded_stream(outcome), outcome.duration_s, warnings)

    def _spawn(self, ffmpeg: Ffmpeg, sandbox: Sandbox) -> SandboxedProcess:
        command = ffmpeg.decode_command(
            INPUT_FD, sample_rate=self._sample_rate, max_duration_s=self._max_duration_s, marker=self._marker
        )
        with self._path.open("rb") as file:
            try:
                return sandbox.spawn(
                    command,
                    input_file=file.fileno(),
                    limits=ffmpeg_limits(self._max_duration_s, self._memory, program_bytes=self._program_bytes),
                    environment=_ENVIRONMENT,
                    cpu=self._cpu,
                )
            except LauncherError as error:
                raise decoder_stopped() from error

    def _check_memory(self, outcome: Outcome, *, is_complete: bool) -> None:
        if self._memory is not DecoderMemory.ORDINARY or outcome.was_killed:
            return
        if may_lack_memory(
            self._path,
            status=outcome.status,
            exit_signal=outcome.log.exit_signal,
            decoded_s=outcome.duration_s,
            is_complete=is_complete,
            data_bytes=self._data_bytes,
        ):
            raise MemoryShortageError

    def _release_cpu(self) -> None:
        if self._cpus and self._cpu is not None:
            self._cpus.release(self._cpu)
            self._cpu = None

    def _decoded_s(self) -> float:
        return self._pcm.n_samples / self._sample_rate

    def _raise_cpu_limit(self) -> None:
        """Allow ffmpeg more CPU time according to the audio that it has decoded."""
        allowed_s = allowed_cpu_s(self._decoded_s())
        if allowed_s - self._cpu_limit_s >= _CPU_LIMIT_STEP_S:
            self._cpu_limit_s = allowed_s
            self._process.set_cpu_limit(allowed_s)

    def _check_sample_rate(self) -> None:
        """Check the sample rate once ffmpeg has logged it."""
        if self._is_rate_checked:
            return
        log = FfmpegLog.parse(self._stderr.text(), self._marker)
        self._is_rate_checked = log.stream is not None
        check_sample_rate(log)


def _read_stderr(process: SandboxedProcess) -> BoundedReader:
    """Collect the log of a process in a thread, or end the process if no thread can be started."""
    try:
        return BoundedReader(process.stderr, _STDERR_BYTES)
    except RuntimeError as error:
        with process.stderr:
            process.close()
        raise OSError(errno.EAGAIN, "no more threads can be started") from error
