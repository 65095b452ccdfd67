"""The messages of a live prediction: what the client sends first, and how the service closes the connection."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field, ValidationError
from pydantic_core import from_json

from wholetrack.api.schemas import PredictionOptions
from wholetrack.decoding.live_pcm import PcmEncoding, PcmFormat
from wholetrack.decoding.outcome import MIN_SAMPLE_RATE_HZ
from wholetrack.errors import ErrorKind, ServiceError

_MAX_SAMPLE_RATE_HZ = 192_000
_MAX_CHANNELS = 8
_MAX_TEXT = 16 << 10

NORMAL_CLOSURE, GOING_AWAY = 1000, 1012
"""Close codes after a result: the client has ended the audio, or the service did because it is shutting down."""

_POLICY_VIOLATION = 1008
_CLOSE_CODES = {
    ErrorKind.MALFORMED_REQUEST: 1007,
    ErrorKind.UPLOAD_TOO_LARGE: 1009,
    ErrorKind.AUDIO_TOO_LONG: 1009,
    ErrorKind.INTERNAL_ERROR: 1011,
    ErrorKind.DEADLINE_EXCEEDED: 1011,
    ErrorKind.DRAINING: GOING_AWAY,
    ErrorKind.OVERLOADED: 1013,
    ErrorKind.DEVICE_FAILED: 1013,
    ErrorKind.MODEL_UNAVAILABLE: 1013,
}


class LiveStart(PredictionOptions):
    """The first message of a client."""

    model_config = ConfigDict(extra="forbid")

    key: str | None = Field(default=None, repr=False, description="API key, if the service requires one.")
    encoding: PcmEncoding = Field(description="Encoding of the samples, little endian: float32 or int16.")
    sample_rate_hz: int = Field(ge=MIN_SAMPLE_RATE_HZ, le=_MAX_SAMPLE_RATE_HZ, description="Sample rate in Hz.")
    channels: int = Field(default=1, ge=1, le=_MAX_CHANNELS, description="Number of channels, interleaved.")

    @property
    def audio(self) -> PcmFormat:
        """The format of the audio."""
        return PcmFormat(self.encoding, self.sample_rate_hz, self.channels)


def read_object(text: str | None) -> dict[str, Any]:
    """Return the JSON object in a text message.

    Raises:
        ServiceError: ``malformed_request``.
    """
    try:
        found = from_json(text) if text is not None and len(text) <= _MAX_TEXT else None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ServiceError(
            ErrorKind.MALFORMED_REQUEST,
            "Send a JSON object as text first, with the encoding and the sample rate, then audio as binary messages, "
            'and {"end": true} as text at the end.',
        )
    return found


def read_end(text: str | None) -> None:
    """Check the last message of a client, the only text after the first message.

    Raises:
        ServiceError: ``malformed_request``.
    """
    if read_object(text) != {"end": True}:
        raise ServiceError(ErrorKind.MALFORMED_REQUEST, 'The only text after the first message is {"end": true}.')


def read_start(fields: dict[str, Any]) -> LiveStart:
    """Return the first message of a client.

    Raises:
        ServiceError: ``invalid_parameter``.
    """
    try:
        return LiveStart.model_validate(fields)
    except ValidationError as error:
        complaints = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg'][0].lower()}{e['msg'][1:]}"
            for e in error.errors(include_url=False, include_input=False)
        )
        raise ServiceError(ErrorKind.INVALID_PARAMETER, f"{complaints}.") from error


def close_code(error: ServiceError) -> int:
    """Return the code with which the connection is closed after an error (RFC 6455, 7.4.1, and IANA's registry)."""
    return _CLOSE_CODES.get(error.kind, _POLICY_VIOLATION)
