"""Refusing WebSockets of pages from other origins. Browsers let any page open one; checking is left to the server."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from wholetrack.errors import ErrorKind, ServiceError

_DEFAULT_PORTS = {"http": 80, "https": 443}
_ANY = "*"


def check_origin(headers: Headers, allowed: Sequence[str]) -> None:
    """Check the origin of a handshake. Clients other than browsers do not send one.

    The scheme of the page is not compared with that of the request, because a proxy may have removed TLS.

    Args:
        headers: Headers of the handshake.
        allowed: Origins in addition to that of the service, as in ``cors_origins``.

    Raises:
        ServiceError: ``forbidden_origin``.
    """
    origin = headers.get("origin")
    if origin is None or origin in allowed or _ANY in allowed or _is_own(origin, headers.get("host", "")):
        return
    raise ServiceError(
        ErrorKind.FORBIDDEN_ORIGIN,
        "The page that opened this WebSocket may not use the service. Ask its operator to add the origin of the page "
        "to WHOLETRACK_CORS_ORIGINS.",
    )


def _is_own(origin: str, host: str) -> bool:
    try:
        page, service = urlsplit(origin), urlsplit(f"//{host}")
        default = _DEFAULT_PORTS[page.scheme]
        own, other = (service.hostname, service.port or default), (page.hostname, page.port or default)
    except (KeyError, ValueError):
        # An opaque origin, "null", or anything else that is no origin of a page.
        return False
    return own == other and service.hostname is not None
