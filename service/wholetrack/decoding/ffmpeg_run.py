"""One ffmpeg process that decodes one part of a file to mono samples."""

from __future__ import annotations

import fcntl
import logging
import secrets
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from wholetrack.decoding.audio_parts import AudioPart
from wholetrack.decoding.ffmpeg import Ffmpeg
from wholetrack.decoding.ffmpeg_log import FfmpegLog
from wholetrack.decoding.limits import allowed_cpu_s
from wholetrack.decoding.mixing import MonoMixer
from wholetrack.decoding.outcome import Outcome, check_sample_rate, decoder_stopped
from wholetrack.decoding.pcm import PcmReader
from wholetrack.decoding.pipes import OutputReader
from wholetrack.decoding.resampling import Resampler
from wholetrack.decoding.validity import SampleCheck
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.sandbox.client import Sandbox
from wholetrack.sandbox.connection import LauncherError
from wholetrack.sandbox.limits import Limits
from wholetrack.sandbox.process import SandboxedProcess
from wholetrack.sandbox.protocol import INPUT_FD

_log = logging.getLogger(__name__)

# Nothing from the service's environment, which holds secrets. One malloc arena for all threads, because each arena of
# glibc reserves 64 MiB of the limited address space.
_ENVIRONMENT = {"LC_ALL": "C", "AV_LOG_FORCE_NOCOLOR": "1", "MALLOC_ARENA_MAX": "1"}
_PIPE_BYTES = 1 << 20
_EXIT_TIMEOUT_S = 5.0
# The CPU limit is raised in steps of at least this, not with every block.
_CPU_LIMIT_STEP_S = 5.0
# The log up to the first audio consists of the tags. The longest lyrics are a few kilobytes, a thousand chapters a few
# hundred.
_MAX_TAGS_BYTES = 8 << 20


class FfmpegRun:
    """A running ffmpeg process. Leaving it as a context manager kills the process.

    Blocks are read by one thread. :meth:`kill` can be called from any thread and ends the output.

    Args:
        ffmpeg: The executable.
        sandbox: Spawns it.
        path: The file.
        part: The part of the file to decode.
        sample_rate: Sample rate of the output in Hz.
        limits: Resource limits of the process.
        cpu: Number of the CPU to pin the process to; None to let the kernel choose.
        exact: Whether to decode exactly; see :meth:`Ffmpeg.decode_command`.

    Attributes:
        log: What the process logged.

    Raises:
        ServiceError: ``internal_error`` if ffmpeg cannot be started.
        OSError: If the machine is out of processes or descriptors, or the file cannot be read.
    """

    def __init__(
        self,
        ffmpeg: Ffmpeg,
        sandbox: Sandbox,
        path: Path,
        part: AudioPart,
        *,
        sample_rate: int,
        limits: Limits,
        cpu: int | None,
        exact: bool,
    ) -> None:
        self._path = path
        self._sample_rate = sample_rate
        self._was_killed = False
        self._cpu_limit_s = allowed_cpu_s(0.0)
        self._n_samples = 0
        self._data_bytes = 0
        self._validity = SampleCheck()
        self._mixer: MonoMixer | None = None
        self._resampler: Resampler | None = None
        marker = f"{secrets.token_hex(8)}:"
        self.log = FfmpegLog(marker)
        command = ffmpeg.decode_command(
            part.url(INPUT_FD), options=part.options, marker=marker, sample_rate=None if exact else sample_rate
        )
        self.process = self._spawn(sandbox, command, limits=limits, cpu=cpu)
        self._output = OutputReader(self.process.stdout, self.process.stderr, self.log.feed)
        self._pcm = PcmReader(
            self._output, n_channels=2 if exact else 1, unit=self._prepare_exact if exact else self._prepare_quick
        )
        # A larger pipe means fewer switches between ffmpeg and the reader. The kernel can refuse it: it limits how much
        # pipe memory a user has.
        with suppress(OSError):
            fcntl.fcntl(self.process.stdout.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self.process.close()
        self.process.stderr.close()

    @property
    def stalled(self) -> bool:
        """Whether the latest block is incomplete because ffmpeg wrote nothing, or too slowly."""
        return self._pcm.stalled

    @property
    def peak(self) -> float:
        """Largest absolute value of a sample so far, where full scale is 1."""
        return self._validity.peak

    def kill(self) -> None:
        """Kill ffmpeg if it is still running."""
        self._was_killed = True
        self.process.kill()

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield mono samples, ``[n_samples]``, in blocks of a few seconds; shorter or empty ones while ffmpeg stalls.

        Raises:
            ServiceError: ``unsupported_media`` if the sample rate is too low or too high, ``undecodable_audio`` if the
                file consists of tags.
        """
        for frames in self._pcm.blocks():
            if not self.log.started and self.log.n_bytes > _MAX_TAGS_BYTES:
                raise ServiceError(ErrorKind.UNDECODABLE_AUDIO, "The tags of the file are too long to be read.")
            samples = self._validity.checked(self._mono(frames))
            self._n_samples += len(samples)
            self._data_bytes = max(self._data_bytes, self.process.data_bytes())
            self._raise_cpu_limit()
            yield samples

    def outcome(self) -> Outcome:
        """Wait for the process to end, and return how it ended. Call it after the last block."""
        self._output.read_log(_EXIT_TIMEOUT_S)
        try:
            status = self.process.wait(_EXIT_TIMEOUT_S)
        except TimeoutError:
            self.kill()
            status = self.process.wait()
        self._output.read_log(0.0)
        self.log.finish()
        return Outcome(
            path=self._path,
            status=status,
            log=self.log,
            duration_s=self._n_samples / self._sample_rate,
            cancelled_s=self._mixer.cancelled_s if self._mixer else 0.0,
            data_bytes=self._data_bytes,
            was_killed=self._was_killed,
            has_invalid_samples=self._validity.has_replaced,
        )

    def _spawn(self, sandbox: Sandbox, command: Sequence[str], *, limits: Limits, cpu: int | None) -> SandboxedProcess:
        with self._path.open("rb") as file:
            try:
                return sandbox.spawn(
                    command,
                    input_file=file.fileno(),
                    limits=limits,
                    environment=_ENVIRONMENT,
                    cpu=cpu,
                )
            except LauncherError as error:
                raise decoder_stopped() from error

    def _prepare_quick(self) -> int:
        check_sample_rate(self.log)
        return 1

    def _prepare_exact(self) -> int:
        """Set up what depends on the sample rate, and return the number of samples that are mixed together."""
        check_sample_rate(self.log)
        rate = self.log.output_rate
        if rate is None:
            _log.error("ffmpeg did not describe its output: %s", self.log.text())
            raise decoder_stopped()
        self._mixer, self._resampler = MonoMixer(rate), Resampler(rate, self._sample_rate)
        return self._mixer.cell

    def _mono(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return mono samples at the sample rate of the output for what ffmpeg wrote, ``[n, n_channels]``."""
        if self._mixer is None or self._resampler is None:
            # Quick decoding, or no samples yet.
            return frames[:, 0]
        mono = self._mixer.mix(frames)
        return self._resampler.finish(mono) if self._pcm.ended else self._resampler.push(mono)

    def _raise_cpu_limit(self) -> None:
        """Allow ffmpeg more CPU time according to the audio that it has decoded."""
        allowed_s = allowed_cpu_s(self._n_samples / self._sample_rate)
        if allowed_s - self._cpu_limit_s >= _CPU_LIMIT_STEP_S:
            self._cpu_limit_s = allowed_s
            self.process.set_cpu_limit(allowed_s)
