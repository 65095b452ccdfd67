"""One file to mono PCM in blocks, by one ffmpeg process that never outlives the reading.

with decoder.open(path, sample_rate=22050, max_duration_s=600) as decoding:
    for block in decoding.blocks():
        ...
    heard = decoding.summary()
"""

from __future__ import annotations

import errno
import fcntl
import logging
import secrets
import signal
import struct
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import StreamInfo, TrackWarning, WarningCode
from wholetrack.decoding.container import breaks_off, has_accepted_signature, is_wrapper
from wholetrack.decoding.cpu_affinity import Processors
from wholetrack.decoding.ffmpeg import CODECS, Ffmpeg
from wholetrack.decoding.ffmpeg_log import Report
from wholetrack.decoding.pipes import BoundedReader, read_into
from wholetrack.errors import ErrorKind, ServiceError, StartupError
from wholetrack.sandbox.client import INPUT, Sandbox
from wholetrack.sandbox.launcher import NOT_STARTED

_log = logging.getLogger(__name__)

_SAMPLE_BYTES = 4
_PROOF_RATE = 16000
_BLOCK_BYTES = 1 << 20
_PIPE_BYTES = 1 << 20
_STDERR_BYTES = 256 * 1024
_EXIT_TIMEOUT_S = 5.0
# Float formats hold anything. Beyond this a mel band's power leaves float32; sound stays below 1, or below 32,768 where
# somebody wrote integers as floats.
_LOUDEST = 1e6
# Half of what a telephone carries. Below that there is no music, and a kilobyte may be hours.
_LOWEST_RATE_HZ = 4000
# A stated duration may be rounded to a packet and include an encoder's delay.
_MISSING_S = 0.5

# What ffmpeg calls the codec of a stream that does not tell it one.
_NO_CODEC = "none"

# By a person, a supervisor, or a kernel that ran out of memory; any other signal is the decoder's own fall over a file.
_STOPPED_FROM_OUTSIDE = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
# Decoding takes hundredths of a recording's length, even on a slow processor; a file can make it take for ever. So it
# gets its time as it gets on.
_PROCESSOR_SHARE = 1 / 20
_PROCESSOR_S = 30.0
_ALLOWANCE_S = 5.0


@dataclass(frozen=True, slots=True)
class DecodedAudio:
    """What was heard of a file, once it is decoded to its end."""

    stream: StreamInfo
    duration_s: float
    warnings: tuple[TrackWarning, ...]


class FfmpegDecoder:
    """Opens files for decoding with one ffmpeg, each in a process of its own.

    Args:
        ffmpeg: the program.
        processors: to choose from for every process; None to leave that to the kernel.
        sandbox: to start it in; None for one with all layers that this machine has.

    Attributes:
        sandbox: as it is used.
    """

    def __init__(self, ffmpeg: Ffmpeg, processors: Processors | None = None, *, sandbox: Sandbox | None = None) -> None:
        self.ffmpeg = ffmpeg
        self.sandbox = sandbox or Sandbox(ffmpeg.path)
        self._processors = processors

    def close(self) -> None:
        """End whatever still decodes, and what starts decoders."""
        self.sandbox.close()

    def self_test(self) -> None:
        """Decode a sound that is known: an ffmpeg may lack a filter, a format, or the right to run where it is.

        Raises:
            StartupError: if anything else comes out.
        """
        tone = np.sin(np.arange(_PROOF_RATE) / 20, dtype=np.float32) / 2
        pcm = np.stack((tone, -tone / 2), axis=1).astype("<f4").tobytes()
        form = struct.pack("<HHIIHH", 3, 2, _PROOF_RATE, _PROOF_RATE * 8, 8, 32)
        riff = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(pcm)) + pcm
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"RIFF" + struct.pack("<I", len(riff)) + riff)
            file.flush()
            try:
                with self.open(Path(file.name), sample_rate=_PROOF_RATE // 2, max_duration_s=10) as decoding:
                    heard = np.concatenate([np.zeros(0, dtype=np.float32), *decoding.blocks()])
                    decoding.summary()
            except (ServiceError, OSError) as error:
                held = f" under {', '.join(sorted(self.sandbox.layers))}" if self.sandbox.layers else ""
                raise StartupError(
                    f"{self.ffmpeg.path} cannot decode a WAV{held}: {error}; name the program itself, not a script "
                    "that starts it, or try WHOLETRACK_SANDBOX=off"
                ) from error
        # The mean of the channels, every other sample; but for the ends, where the resampler meets what is not there.
        inner, expected = slice(200, -200), tone[::2] / 4
        if heard.shape != expected.shape or not np.allclose(heard[inner], expected[inner], atol=1e-4):
            raise StartupError(f"{self.ffmpeg.path} decodes a known WAV wrongly")

    def open(self, path: Path, *, sample_rate: int, max_duration_s: float) -> Decoding:
        """Start decoding.

        Args:
            path: a seekable file that belongs to the caller.
            sample_rate: of the PCM wanted, in Hz.
            max_duration_s: a longer recording is refused, while it is being decoded.
        """
        return Decoding(
            self.ffmpeg,
            path,
            sample_rate=sample_rate,
            max_duration_s=max_duration_s,
            sandbox=self.sandbox,
            processors=self._processors,
        )


class Decoding:
    """A running ffmpeg; a context manager that leaves no process behind.

    One thread reads; :meth:`kill` may be called from any thread and makes the reader's next block the last.

    Attributes:
        stalled: the last block was cut short because nothing came, or too slowly.
        ended: it was the last.
    """

    def __init__(
        self,
        ffmpeg: Ffmpeg,
        path: Path,
        *,
        sample_rate: int,
        max_duration_s: float,
        sandbox: Sandbox,
        processors: Processors | None,
    ) -> None:
        self._path = path
        self._sample_rate = sample_rate
        self._max_samples = int(max_duration_s * sample_rate)
        self._max_duration_s = max_duration_s
        self._n_samples = 0
        self.stalled = self.ended = False
        self._allowed_s = _PROCESSOR_S
        self._killed = False
        self._impossible = False
        self._rate_is_known = False
        self._mark = f"{secrets.token_hex(8)}:"
        self._processors = processors
        self._processor = processors.take() if processors else None
        try:
            with path.open("rb") as file:
                self._process = sandbox.start(
                    ffmpeg.decode_command(
                        INPUT, sample_rate=sample_rate, max_duration_s=max_duration_s, mark=self._mark
                    ),
                    input_file=file.fileno(),
                    processor_s=self._allowed_s,
                    most_processor_s=_PROCESSOR_S + _PROCESSOR_SHARE * max_duration_s,
                    processor=self._processor,
                )
        except (ConnectionError, TimeoutError) as error:
            self._give_processor_back()
            raise _stopped() from error
        except BaseException:
            self._give_processor_back()
            raise
        self._pcm = self._process.output
        with suppress(OSError):
            fcntl.fcntl(self._pcm.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        try:
            self._words = BoundedReader(self._process.words, _STDERR_BYTES)
        except RuntimeError as error:
            with self._process.words:
                self._process.close()
            self._give_processor_back()
            raise OSError(errno.EAGAIN, "no room for one more thread") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.kill()
            self._process.close()
        finally:
            self._give_processor_back()
            self._words.close()

    def _give_processor_back(self) -> None:
        if self._processors and self._processor is not None:
            self._processors.give_back(self._processor)
            self._processor = None

    def kill(self) -> None:
        """Stop ffmpeg at once, if it has not ended."""
        self._killed = True
        self._process.kill()

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """The PCM, mono, full scale at 1.0, in blocks of up to 262,144 samples; fewer or none while nothing comes.

        Raises:
            ServiceError: ``audio_too_long`` as soon as more is decoded than was allowed, ``unsupported_media`` as soon
                as it is known to have too few samples a second.
        """
        left, ended = b"", False
        while not ended:
            buffer = bytearray(_BLOCK_BYTES)
            buffer[: len(left)] = left
            received, ended = read_into(self._pcm, memoryview(buffer)[len(left) :])
            filled = len(left) + received
            self.ended, self.stalled = ended, not ended and filled < _BLOCK_BYTES
            n_samples = filled // _SAMPLE_BYTES
            left = bytes(buffer[n_samples * _SAMPLE_BYTES : filled])
            if ended and not n_samples:
                return
            block = np.frombuffer(buffer, dtype="<f4", count=n_samples)
            self._n_samples += n_samples
            self._allow()
            if not self._rate_is_known:
                self._check_rate(Report.parse(self._words.so_far(), self._mark))
            if self._n_samples > self._max_samples:
                raise ServiceError(
                    ErrorKind.AUDIO_TOO_LONG,
                    f"The recording is longer than the limit of {self._max_duration_s:g} seconds; "
                    "send a shorter one, or ask the operator to raise max_duration_s.",
                )
            yield self._possible(block)

    def _allow(self) -> None:
        """Give the decoder more time where it has decoded more."""
        earned_s = _PROCESSOR_S + _PROCESSOR_SHARE * self._n_samples / self._sample_rate
        if earned_s - self._allowed_s >= _ALLOWANCE_S:
            self._allowed_s = earned_s
            self._process.allow(earned_s)

    def _possible(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """The samples without what is no sound: NaN becomes silence, infinities and absurd values the loudest."""
        if np.abs(block).max(initial=0.0) <= _LOUDEST:
            return block
        self._impossible = True
        return np.clip(np.nan_to_num(block), -_LOUDEST, _LOUDEST)

    def summary(self) -> DecodedAudio:
        """What was heard, to be asked for after the last block.

        Raises:
            ServiceError: if nothing was: ``unsupported_media``, ``undecodable_audio``, ``no_audio_stream`` or
                ``empty_audio``.
        """
        try:
            status = self._process.wait(_EXIT_TIMEOUT_S)
        except TimeoutError:
            self.kill()
            status = self._process.wait()
        text = self._words.close()
        report = Report.parse(text, self._mark)
        if status == NOT_STARTED:
            _log.error("ffmpeg was not started: %s", text[-2000:])
            raise _stopped()
        # It takes some signals for a wish that it should come to an end, and says so.
        number = -status if status < 0 else (status and report.ended_by)
        if number and not self._killed:
            _log.error("ffmpeg was ended by signal %d: %s", number, text[-2000:])
            raise self._reason_for_dying(number)
        if is_wrapper(self._path):
            raise _not_audio()
        self._check_rate(report)
        if self._n_samples == 0 or report.stream is None:
            _log.info("ffmpeg gave no audio (status %d): %s", status, text[-2000:])
            raise self._reason_for_nothing(report)
        if status != 0:
            _log.warning("ffmpeg ended with status %d: %s", status, text[-2000:])
        duration_s = self._n_samples / self._sample_rate
        return DecodedAudio(report.stream, duration_s, tuple(self._warnings(report, duration_s, status)))

    def _check_rate(self, report: Report) -> None:
        """Refuse what stands for hours of sound in a kilobyte, once the rate is known."""
        if report.stream is None:
            return
        self._rate_is_known = True
        if 0 < report.stream.sample_rate_hz < _LOWEST_RATE_HZ:
            raise ServiceError(
                ErrorKind.UNSUPPORTED_MEDIA,
                f"The recording has {report.stream.sample_rate_hz} samples a second; send one of at least "
                f"{_LOWEST_RATE_HZ}.",
            )

    def _warnings(self, report: Report, duration_s: float, status: int) -> Iterator[TrackWarning]:
        if report.declared_s is not None and duration_s + _MISSING_S < report.declared_s:
            yield TrackWarning(
                WarningCode.TRUNCATED,
                f"The file states {report.declared_s:.2f} s but holds {duration_s:.2f} s: the answer is about what "
                "is there.",
            )
        elif breaks_off(self._path):
            yield TrackWarning(
                WarningCode.TRUNCATED,
                f"The file breaks off after {duration_s:.2f} s: the answer is about what is there.",
            )
        elif status != 0 or report.decode_errors or self._impossible:
            yield TrackWarning(
                WarningCode.DAMAGED, "Parts of the file could not be decoded: the answer is about the rest."
            )

    @staticmethod
    def _reason_for_dying(number: int) -> ServiceError:
        if number in _STOPPED_FROM_OUTSIDE:
            return _stopped()
        return ServiceError(ErrorKind.UNDECODABLE_AUDIO, "The file broke the decoder: it is corrupt or made to.")

    def _reason_for_not_opening(self) -> ServiceError:
        if has_accepted_signature(self._path):
            return ServiceError(
                ErrorKind.UNDECODABLE_AUDIO,
                "The file starts like audio but cannot be opened: it is cut off or corrupt. Send a complete file.",
            )
        return _not_audio()

    def _reason_for_nothing(self, report: Report) -> ServiceError:
        if self._path.stat().st_size == 0:
            return ServiceError(ErrorKind.EMPTY_AUDIO, "The file has no bytes; send a recording.")
        if not report.opened:
            return self._reason_for_not_opening()
        if report.stream is None:
            return ServiceError(ErrorKind.NO_AUDIO_STREAM, "The file was opened but has no audio stream.")
        if report.stream.codec not in CODECS:
            return _not_accepted(report.stream.codec)
        if report.decode_errors or not report.started:
            return ServiceError(
                ErrorKind.UNDECODABLE_AUDIO,
                f"The {report.stream.codec} stream could not be decoded: it is cut off or corrupt.",
            )
        return ServiceError(ErrorKind.EMPTY_AUDIO, "The file was opened but its audio stream has no samples.")


def _stopped() -> ServiceError:
    return ServiceError(ErrorKind.INTERNAL_ERROR, "The decoder was stopped; try again.", retry_after_s=1)


def _not_accepted(codec: str) -> ServiceError:
    if codec == _NO_CODEC:
        return ServiceError(
            ErrorKind.UNDECODABLE_AUDIO,
            "The file does not say how its sound is coded: it is corrupt or of a rare kind.",
        )
    return ServiceError(
        ErrorKind.UNSUPPORTED_MEDIA,
        f"The file holds {codec} sound, which is not accepted; convert it to flac, mp3, ogg or m4a.",
    )


def _not_audio() -> ServiceError:
    return ServiceError(
        ErrorKind.UNSUPPORTED_MEDIA, "Send audio as wav, flac, mp3, ogg, opus, m4a, aac, aiff, wma or webm."
    )
