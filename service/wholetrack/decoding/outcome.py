"""What the end of an ffmpeg process means for the client: an error, warnings, or a complete recording."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wholetrack.contracts import StreamInfo, TrackWarning, WarningCode
from wholetrack.decoding.container import has_accepted_signature, is_archive, is_truncated
from wholetrack.decoding.ffmpeg import CODECS
from wholetrack.decoding.ffmpeg_log import FfmpegLog
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.sandbox.protocol import NOT_STARTED

_log = logging.getLogger(__name__)

# Half the rate of a telephone line. No music is recorded below that, and a kilobyte could be hours of audio.
_MIN_SAMPLE_RATE_HZ = 4000
# A declared duration may be rounded to a packet and include the delay of the encoder.
_DURATION_TOLERANCE_S = 0.5
# What ffmpeg calls the codec of a stream that does not state one.
_UNKNOWN_CODEC = "none"
# Sent by an operator, a supervisor, or a kernel that is out of memory. Any other signal is a crash caused by the file.
_EXTERNAL_SIGNALS = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
_LOGGED_CHARACTERS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one ffmpeg process ended.

    Attributes:
        path: The file that it decoded.
        status: Its exit status, or minus the number of the signal that killed it.
        stderr: What it wrote to stderr.
        log: The same, parsed.
        duration_s: Duration of the decoded audio in seconds.
        was_killed: Whether the service killed it on purpose.
        has_invalid_samples: Whether it produced samples that are not audio, such as NaN.
    """

    path: Path
    status: int
    stderr: str
    log: FfmpegLog
    duration_s: float
    was_killed: bool
    has_invalid_samples: bool


def decoded_stream(outcome: Outcome) -> StreamInfo:
    """Return the audio stream that was decoded.

    Raises:
        ServiceError: If none was, or the process did not reach its end: ``unsupported_media``, ``undecodable_audio``,
            ``no_audio_stream``, ``empty_audio`` or ``internal_error``.
    """
    status, log, stderr = outcome.status, outcome.log, outcome.stderr[-_LOGGED_CHARACTERS:]
    if status == NOT_STARTED:
        _log.error("ffmpeg was not started: %s", stderr)
        raise decoder_stopped()
    # ffmpeg handles some signals: it finishes its output, logs the signal and exits with a positive status.
    number = -status if status < 0 else (status and log.exit_signal)
    if number and not outcome.was_killed:
        _log.error("ffmpeg was terminated by signal %d: %s", number, stderr)
        raise decoder_stopped() if number in _EXTERNAL_SIGNALS else _crashed()
    if is_archive(outcome.path):
        raise _not_audio()
    check_sample_rate(log)
    if outcome.duration_s == 0 or log.stream is None:
        _log.info("ffmpeg produced no audio (status %d): %s", status, stderr)
        raise _no_audio(outcome.path, log)
    if status != 0:
        _log.warning("ffmpeg exited with status %d: %s", status, stderr)
    return log.stream


def track_warnings(outcome: Outcome) -> Iterator[TrackWarning]:
    """Yield what the client should know about a recording that was decoded, but possibly not completely."""
    log, duration_s = outcome.log, outcome.duration_s
    if log.declared_s is not None and duration_s + _DURATION_TOLERANCE_S < log.declared_s:
        yield TrackWarning(
            WarningCode.TRUNCATED,
            f"The file declares a duration of {log.declared_s:.2f} s but contains {duration_s:.2f} s of audio. "
            "The result covers the audio that it contains.",
        )
    elif is_truncated(outcome.path):
        yield TrackWarning(
            WarningCode.TRUNCATED,
            f"The file is truncated after {duration_s:.2f} s. The result covers the audio that it contains.",
        )
    elif outcome.status != 0 or log.decode_errors or outcome.has_invalid_samples:
        yield TrackWarning(
            WarningCode.DAMAGED, "Parts of the file could not be decoded. The result covers the other parts."
        )


def check_sample_rate(log: FfmpegLog) -> None:
    """Reject sample rates at which a kilobyte can be hours of audio.

    Raises:
        ServiceError: ``unsupported_media``.
    """
    if log.stream is not None and 0 < log.stream.sample_rate_hz < _MIN_SAMPLE_RATE_HZ:
        raise ServiceError(
            ErrorKind.UNSUPPORTED_MEDIA,
            f"The recording has a sample rate of {log.stream.sample_rate_hz} Hz. Send one with at least "
            f"{_MIN_SAMPLE_RATE_HZ} Hz.",
        )


def decoder_stopped() -> ServiceError:
    """Return the error for a process that could not be started or was stopped from outside."""
    return ServiceError(ErrorKind.INTERNAL_ERROR, "The decoder was stopped. Try again.", retry_after_s=1)


def _crashed() -> ServiceError:
    return ServiceError(
        ErrorKind.UNDECODABLE_AUDIO, "The decoder crashed on this file. The file is corrupt or malicious."
    )


def _not_audio() -> ServiceError:
    return ServiceError(
        ErrorKind.UNSUPPORTED_MEDIA, "Send audio as wav, flac, mp3, ogg, opus, m4a, aac, aiff, wma or webm."
    )


def _no_audio(path: Path, log: FfmpegLog) -> ServiceError:
    """Return why a process that was not interrupted produced no audio."""
    if path.stat().st_size == 0:
        return ServiceError(ErrorKind.EMPTY_AUDIO, "The file is empty. Send a recording.")
    if not log.opened:
        return _not_opened(path)
    if log.stream is None:
        return ServiceError(ErrorKind.NO_AUDIO_STREAM, "The file was opened but has no audio stream.")
    if log.stream.codec not in CODECS:
        return _codec_not_supported(log.stream.codec)
    if log.decode_errors or not log.started:
        return ServiceError(
            ErrorKind.UNDECODABLE_AUDIO,
            f"The {log.stream.codec} stream could not be decoded: it is truncated or corrupt.",
        )
    return ServiceError(ErrorKind.EMPTY_AUDIO, "The file was opened but its audio stream has no samples.")


def _not_opened(path: Path) -> ServiceError:
    if has_accepted_signature(path):
        return ServiceError(
            ErrorKind.UNDECODABLE_AUDIO,
            "The file looks like audio but cannot be opened: it is truncated or corrupt. Send a complete file.",
        )
    return _not_audio()


def _codec_not_supported(codec: str) -> ServiceError:
    if codec == _UNKNOWN_CODEC:
        return ServiceError(
            ErrorKind.UNDECODABLE_AUDIO,
            "The file does not state the codec of its audio stream: it is corrupt or in a rare format.",
        )
    return ServiceError(
        ErrorKind.UNSUPPORTED_MEDIA,
        f"The file contains {codec} audio, which is not supported. Convert it to flac, mp3, ogg or m4a.",
    )
