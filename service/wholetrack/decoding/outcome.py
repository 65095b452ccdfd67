"""What the end of an ffmpeg process means for the client: an error, warnings, or a complete recording."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wholetrack.contracts import StreamInfo, TrackWarning, WarningCode
from wholetrack.decoding.container import has_accepted_signature, is_archive
from wholetrack.decoding.ffmpeg import CODECS
from wholetrack.decoding.ffmpeg_log import FfmpegLog
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.sandbox.protocol import NOT_STARTED

_log = logging.getLogger(__name__)

# Half the rate of a telephone line. No music is recorded below that, and a kilobyte could be hours of audio.
MIN_SAMPLE_RATE_HZ = 4000
# The highest rate of recorders and converters.
MAX_SAMPLE_RATE_HZ = 768_000
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
        log: What it wrote to stderr.
        duration_s: Duration of the decoded audio in seconds.
        cancelled_s: Duration of the audio whose channels cancel each other, in seconds.
        data_bytes: How much memory it used while it was decoding; 0 if it ended too soon to tell.
        was_killed: Whether the service killed it on purpose.
        has_invalid_samples: Whether it produced samples that are not audio, such as NaN.
    """

    path: Path
    status: int
    log: FfmpegLog
    duration_s: float
    cancelled_s: float
    data_bytes: int
    was_killed: bool
    has_invalid_samples: bool


def decoded_stream(outcome: Outcome) -> StreamInfo:
    """Return the audio stream that was decoded.

    Raises:
        ServiceError: If none was, or the process did not reach its end: ``unsupported_media``, ``undecodable_audio``,
            ``no_audio_stream``, ``empty_audio`` or ``internal_error``.
    """
    status, log, stderr = outcome.status, outcome.log, outcome.log.text()[-_LOGGED_CHARACTERS:]
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


def track_warnings(outcomes: Sequence[Outcome], *, n_failed: int, is_truncated: bool | None) -> Iterator[TrackWarning]:
    """Yield what the client should know about a recording that was decoded, but possibly not completely.

    Args:
        outcomes: One for each part of the file that was decoded.
        n_failed: Number of parts that could not be decoded.
        is_truncated: Whether the structure of the file shows that its end is missing; None if it does not tell.
    """
    duration_s = sum(outcome.duration_s for outcome in outcomes)
    missing = [outcome for outcome in outcomes if is_truncated is None and _is_short(outcome)]
    if missing and len(outcomes) == 1:
        yield TrackWarning(
            WarningCode.TRUNCATED,
            f"The file declares a duration of {missing[0].log.declared_s:.2f} s but contains {duration_s:.2f} s of "
            "audio. The result covers the audio that it contains.",
        )
    elif missing or is_truncated:
        yield TrackWarning(
            WarningCode.TRUNCATED,
            f"The file is truncated after {duration_s:.2f} s. The result covers the audio that it contains.",
        )
    elif n_failed or any(_is_damaged(outcome) for outcome in outcomes):
        yield TrackWarning(
            WarningCode.DAMAGED,
            f"Parts of the file could not be decoded. The result covers the other parts, {duration_s:.2f} s of audio.",
        )
    if cancelled_s := sum(outcome.cancelled_s for outcome in outcomes):
        yield cancelled_channels(cancelled_s)


def cancelled_channels(cancelled_s: float) -> TrackWarning:
    """Return the warning about a recording whose channels cancel each other for some time."""
    return TrackWarning(
        WarningCode.CANCELLED_CHANNELS,
        f"In {cancelled_s:.2f} s of the recording, the mean of the channels is nearly silent although the channels "
        "are not, because one is the inverse of the other. The first channel is used there.",
    )


def _is_short(outcome: Outcome) -> bool:
    """Return whether a file declares more audio than it contains."""
    log = outcome.log
    # A recording whose timestamps start late or jump declares the time of its end, and not how long its samples last.
    end_s = max(outcome.duration_s, log.end_s or 0.0)
    return log.declared_s is not None and end_s + _DURATION_TOLERANCE_S < log.declared_s


def _is_damaged(outcome: Outcome) -> bool:
    return outcome.status != 0 or outcome.log.decode_errors > 0 or outcome.has_invalid_samples


def check_sample_rate(log: FfmpegLog) -> None:
    """Reject sample rates at which a kilobyte can be hours of audio, and those that no recorder has.

    Raises:
        ServiceError: ``unsupported_media``.
    """
    if log.stream is None or log.stream.sample_rate_hz == 0:
        return
    rate = log.stream.sample_rate_hz
    if not MIN_SAMPLE_RATE_HZ <= rate <= MAX_SAMPLE_RATE_HZ:
        raise ServiceError(
            ErrorKind.UNSUPPORTED_MEDIA,
            f"The recording has a sample rate of {rate} Hz. Send one with {MIN_SAMPLE_RATE_HZ} to "
            f"{MAX_SAMPLE_RATE_HZ} Hz.",
        )


def check_duration(decoded_s: float, max_duration_s: float) -> None:
    """Reject a recording that is longer than allowed.

    Raises:
        ServiceError: ``audio_too_long``.
    """
    if decoded_s > max_duration_s:
        raise ServiceError(
            ErrorKind.AUDIO_TOO_LONG,
            f"The recording is longer than the limit of {max_duration_s:g} seconds. "
            "Send a shorter one, or ask the operator to raise max_duration_s.",
        )


def is_fault_of_file(error: ServiceError) -> bool:
    """Return whether an error is caused by the file, so that other parts of it may still be decoded."""
    return error.kind is not ErrorKind.INTERNAL_ERROR


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
