"""Refusing requests for other hosts, which a web page can make a browser send (DNS rebinding).

The owner of a domain can let its name resolve to 127.0.0.1. A page of that domain may then read everything that a
service on the visitor's machine responds without a key. Such requests differ from others only in their ``Host`` header.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from wholetrack.api.problems import problem_response
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.settings import Settings


class HostCheck:
    """Middleware that refuses requests whose ``Host`` is neither local nor allowed.

    IP addresses and names without a dot are always accepted, since nobody can register them as a domain. They include
    localhost and the names of containers.

    Args:
        app: The application.
        allowed: Further names; one that begins with ``*`` stands for all names with the rest as their suffix.
    """

    def __init__(self, app: ASGIApp, *, allowed: Sequence[str]) -> None:
        self._app = app
        self._names = frozenset(_normalise(name) for name in allowed if not name.startswith("*"))
        self._suffixes = (".localhost", *(_normalise(name[1:]) for name in allowed if name.startswith("*")))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, or refuse it."""
        is_checked = scope["type"] in {"http", "websocket"}
        if not is_checked or self._is_accepted(_host_name(Headers(scope=scope).get("host", ""))):
            await self._app(scope, receive, send)
            return
        error = ServiceError(
            ErrorKind.UNKNOWN_HOST,
            "Address the service as localhost or by its IP address, or ask its operator to add the name in the Host "
            "header to WHOLETRACK_ALLOWED_HOSTS.",
        )
        await problem_response(error)(scope, receive, send)

    def _is_accepted(self, name: str) -> bool:
        return "." not in name or name in self._names or name.endswith(self._suffixes) or _is_address(name)


def hosts_to_check(settings: Settings, *, needs_key: bool) -> tuple[str, ...] | None:
    """Return the names that requests may use in addition to local ones, or None if they may use any name.

    By default only a service that listens on a loopback address and needs no key checks names. Another address is
    reached under names that the service cannot know: those of a proxy, a container or a cluster.
    """
    if settings.allowed_hosts:
        return (*settings.allowed_hosts, settings.host)
    return () if _is_loopback(settings.host) and not needs_key else None


def _host_name(header: str) -> str:
    """Return the name or address in a ``Host`` header, without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return _normalise(header.partition(":")[0])


def _normalise(name: str) -> str:
    return name.strip().lower().removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ip_address(host).is_loopback)
