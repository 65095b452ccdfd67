"""Responses to requests that the server refuses before the application sees them."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from wholetrack.api.problems import problem_response
from wholetrack.errors import ErrorKind, ServiceError


def refusal(error: ServiceError, *, request_id: str) -> bytes:
    """Return a complete HTTP response with a problem, after which the connection is closed."""
    response = problem_response(error, request_id=request_id)
    return b"".join(
        (
            STATUS_LINE[error.kind.status],
            *(b"%b: %b\r\n" % header for header in response.raw_headers),
            b"x-request-id: %b\r\nconnection: close\r\n\r\n" % request_id.encode(),
            bytes(response.body),
        )
    )


def too_many_connections() -> ServiceError:
    """Return the error for a connection above the limit."""
    return ServiceError(ErrorKind.OVERLOADED, "Too many connections are open.", retry_after_s=1)


def not_http() -> ServiceError:
    """Return the error for anything that is not a valid HTTP request."""
    return ServiceError(ErrorKind.MALFORMED_REQUEST, "The request is not valid HTTP.")


def headers_too_large(*, max_bytes: int, max_headers: int, max_line_bytes: int) -> ServiceError:
    """Return the error for headers above one of the limits."""
    return ServiceError(
        ErrorKind.HEADERS_TOO_LARGE,
        f"The headers of the request are too large. Send at most {max_headers} headers with {max_bytes} bytes in all, "
        f"and at most {max_line_bytes} bytes in each of them and in the URL.",
    )


def headers_too_slow() -> ServiceError:
    """Return the error for headers that were not complete in time."""
    return ServiceError(ErrorKind.REQUEST_TOO_SLOW, "The headers of the request did not arrive in time.")


def chunks_too_small(min_bytes: int) -> ServiceError:
    """Return the error for a body that consists of too many small chunks."""
    return ServiceError(
        ErrorKind.MALFORMED_REQUEST,
        f"The body consists of too many small chunks. Send at least {min_bytes} bytes per chunk on average.",
    )


def too_many_parameters(limit: int) -> ServiceError:
    """Return the error for a query string with too many parameters."""
    return ServiceError(ErrorKind.INVALID_PARAMETER, f"The URL has more than {limit} query parameters.")


def unsupported_transfer_coding() -> ServiceError:
    """Return the error for a body with a transfer coding other than chunked."""
    return ServiceError(
        ErrorKind.UNSUPPORTED_TRANSFER_CODING, "Send the body uncompressed. The only transfer coding is 'chunked'."
    )
