"""One ffmpeg process that decodes one part of a file."""

from __future__ import annotations

import fcntl
import logging
import secrets
import select
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Generic, Self

from wholetrack.decoding.audio_parts import AudioPart
from wholetrack.decoding.ffmpeg import Ffmpeg
from wholetrack.decoding.ffmpeg_log import FfmpegLog
from wholetrack.decoding.limits import allowed_cpu_s
from wholetrack.decoding.outcome import Outcome, check_sample_rate, decoder_stopped
from wholetrack.decoding.pipes import BLOCK_TIMEOUT_S, LogReader
from wholetrack.decoding.receiving import Received, Receiver, T
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


class FfmpegRun(Generic[T]):
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
        receiver: Receives its output.
        is_last: Whether the part is the last one of the file.

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
        receiver: Receiver[T],
        is_last: bool,
    ) -> None:
        self._path = path
        self._sample_rate = sample_rate
        self._exact = exact
        self._receiver = receiver
        self._is_last = is_last
        self._was_killed = False
        self._cpu_limit_s = allowed_cpu_s(0.0)
        self._n_samples = 0
        self._data_bytes = 0
        self._latest: Received[T] = Received(content=receiver.nothing)
        marker = f"{secrets.token_hex(8)}:"
        self.log = FfmpegLog(marker)
        command = ffmpeg.decode_command(
            part.url(INPUT_FD), options=part.options, marker=marker, sample_rate=None if exact else sample_rate
        )
        self.process = self._spawn(sandbox, command, limits=limits, cpu=cpu)
        self._log_reader = LogReader(self.process.stderr, self.log.feed)
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

    def kill(self) -> None:
        """Kill ffmpeg if it is still running."""
        self._was_killed = True
        self.process.kill()

    def blocks(self) -> Iterator[Received[T]]:
        """Yield what the receiver receives; empty blocks while ffmpeg has not written anything.

        Raises:
            ServiceError: ``unsupported_media`` if the sample rate is too low or too high, ``undecodable_audio`` if the
                file consists of tags.
        """
        stdout = self.process.stdout
        while not (events := self._log_reader.wait_for(stdout.fileno(), deadline=time.monotonic() + BLOCK_TIMEOUT_S)):
            self._check_tags()
            yield Received(content=self._receiver.nothing, stalled=True)
        # ffmpeg describes the audio before it writes any.
        self._log_reader.read(0.0)
        self._measure_memory()
        self._receiver.begin(
            stdout, rate=self._exact_rate(has_audio=bool(events & select.POLLIN)), is_last=self._is_last
        )
        while not self._latest.ended:
            block = self._latest = self._receiver.receive(self._log_reader)
            # Everything that the process logged before it wrote the block.
            self._log_reader.read(0.0)
            self._check_tags()
            self._n_samples += block.n_samples
            self._measure_memory()
            self._raise_cpu_limit()
            yield block

    def outcome(self) -> Outcome:
        """Wait for the process to end, and return how it ended. Call it after the last block."""
        self._log_reader.read(_EXIT_TIMEOUT_S)
        try:
            status = self.process.wait(_EXIT_TIMEOUT_S)
        except TimeoutError:
            self.kill()
            status = self.process.wait()
        self._log_reader.read(0.0)
        self.log.finish()
        return Outcome(
            path=self._path,
            status=status,
            log=self.log,
            duration_s=self._n_samples / self._sample_rate,
            cancelled_s=self._latest.cancelled_s,
            data_bytes=self._data_bytes,
            was_killed=self._was_killed,
            has_invalid_samples=self._latest.has_replaced,
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

    def _check_tags(self) -> None:
        if not self.log.started and self.log.n_bytes > _MAX_TAGS_BYTES:
            raise ServiceError(ErrorKind.UNDECODABLE_AUDIO, "The tags of the file are too long to be read.")

    def _exact_rate(self, *, has_audio: bool) -> int | None:
        """Check the sample rate, and return that of the output if decoding is exact."""
        if has_audio:
            check_sample_rate(self.log)
        if not (self._exact and has_audio):
            return None
        if self.log.output_rate is None:
            _log.error("ffmpeg did not describe its output: %s", self.log.text())
            raise decoder_stopped()
        return self.log.output_rate

    def _measure_memory(self) -> None:
        self._data_bytes = max(self._data_bytes, self.process.data_bytes())

    def _raise_cpu_limit(self) -> None:
        """Allow ffmpeg more CPU time according to the audio that it has decoded."""
        allowed_s = allowed_cpu_s(self._n_samples / self._sample_rate)
        if allowed_s - self._cpu_limit_s >= _CPU_LIMIT_STEP_S:
            self._cpu_limit_s = allowed_s
            self.process.set_cpu_limit(allowed_s)
