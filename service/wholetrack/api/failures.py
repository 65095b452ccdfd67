"""The errors for exceptions that are not errors of a request: a lack of resources, and anything unexpected."""

from __future__ import annotations

import errno
import logging
import os

from wholetrack.errors import ErrorKind, ServiceError

_log = logging.getLogger(__name__)

# The machine is temporarily out of disk space, file descriptors, memory or processes.
_OUT_OF_RESOURCES = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})
_RETRY_AFTER_S = 5


def service_error(error: BaseException) -> ServiceError:
    """Return the error to report for any exception. One that is unexpected is logged."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, OSError) and error.errno in _OUT_OF_RESOURCES:
        return from_os_error(error)
    _log.error("unexpected error", exc_info=error)
    return internal_error()


def from_os_error(error: OSError) -> ServiceError:
    """Return the error to report if the machine is out of a resource; re-raise any other error."""
    if error.errno not in _OUT_OF_RESOURCES:
        raise error
    _log.error("out of resources: %s", os.strerror(error.errno))
    return ServiceError(
        ErrorKind.OVERLOADED,
        f"The service is out of resources. Try again in {_RETRY_AFTER_S} s.",
        retry_after_s=_RETRY_AFTER_S,
    )


def internal_error() -> ServiceError:
    """Return the error for an unexpected exception."""
    return ServiceError(
        ErrorKind.INTERNAL_ERROR,
        "The request failed because of an error in the service. Report the request id to its operator.",
    )
