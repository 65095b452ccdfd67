"""Every error that a client can receive: its code, HTTP status and title."""

from __future__ import annotations

from enum import Enum
from functools import partial
from typing import Any


class ErrorKind(Enum):
    """A kind of error: its HTTP status and its title. Clients may match on ``code``, which does not change."""

    MALFORMED_REQUEST = 400, "The request is malformed"
    UNAUTHORISED = 401, "An API key is required"
    FORBIDDEN_ORIGIN = 403, "Pages of this origin may not use the service"
    UNKNOWN_MODEL = 404, "There is no such model"
    NOT_FOUND = 404, "There is nothing at this path"
    METHOD_NOT_ALLOWED = 405, "This path does not support that method"
    NOT_ACCEPTABLE = 406, "The response is not available in that format"
    REQUEST_TOO_SLOW = 408, "The request arrived too slowly"
    UPLOAD_TOO_LARGE = 413, "The upload is too large"
    AUDIO_TOO_LONG = 413, "The recording is too long"
    UNSUPPORTED_MEDIA = 415, "The audio format is not supported"
    UNKNOWN_HOST = 421, "The service is not known by this host name"
    UNDECODABLE_AUDIO = 422, "The audio cannot be decoded"
    NO_AUDIO_STREAM = 422, "The file contains no audio"
    EMPTY_AUDIO = 422, "The recording is empty"
    INVALID_PARAMETER = 422, "A parameter is invalid"
    UPGRADE_REQUIRED = 426, "This path needs a WebSocket"
    OVERLOADED = 429, "The service is busy"
    HEADERS_TOO_LARGE = 431, "The headers are too large"
    CLIENT_GONE = 499, "The client disconnected"
    INTERNAL_ERROR = 500, "The service failed"
    UNSUPPORTED_TRANSFER_CODING = 501, "The transfer coding is not supported"
    NOT_READY = 503, "The service is not ready"
    DRAINING = 503, "The service is shutting down"
    DEVICE_FAILED = 503, "The inference device failed"
    MODEL_UNAVAILABLE = 503, "The model is unavailable"
    DEADLINE_EXCEEDED = 504, "The request took too long"

    def __init__(self, status: int, title: str) -> None:
        self.status = status
        self.title = title

    @property
    def code(self) -> str:
        """The name that clients may match on, such as ``upload_too_large``."""
        return self.name.lower()


class ServiceError(Exception):
    """An error that is reported to the client.

    Attributes:
        kind: Entry of the error in the table.
        detail: One or two sentences that say what happened or what to do. They never contain a path or the output of
            another program.
        retry_after_s: Time after which a retry may succeed, in seconds; None if a retry will not help.
    """

    def __init__(self, kind: ErrorKind, detail: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(f"{kind.code}: {detail}")
        self.kind = kind
        self.detail = detail
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how to restore the error in another process."""
        return partial(ServiceError, retry_after_s=self.retry_after_s), (self.kind, self.detail)


class StartupError(Exception):
    """The service cannot start with this configuration. The message says what to change."""


class UnavailableModelError(StartupError):
    """A model satisfies the contract, but the device cannot run it.

    Attributes:
        device: The device, ``cpu`` or ``cuda:`` and the number of a GPU.
        reason: Why, as a clause without paths and without the output of a library. Clients may read it.
    """

    def __init__(self, message: str, *, device: str, reason: str) -> None:
        super().__init__(message)
        self.device = device
        self.reason = reason
