"""The sockets that the server listens on."""

from __future__ import annotations

import os
import socket

from wholetrack.errors import StartupError

# New connections wait behind all that the kernel keeps. If many clients open connections and send nothing, a long queue
# such as uvicorn's, 2,048, delays health probes. A short one overflows, and a client that is dropped waits for a second
# before it tries again.
BACKLOG = 512
"""Number of connections that the kernel keeps until they are accepted."""


def listening_sockets(host: str, port: int, *, setting: str) -> list[socket.socket]:
    """Return one socket for each address of a host; ``::`` stands for all addresses, IPv6 and IPv4.

    Args:
        host: Address or name.
        port: Port; 0 for a free one.
        setting: Name of the setting with the port, for the error.

    Raises:
        StartupError: If the host has no address on this machine or the port is in use.
    """
    sockets: list[socket.socket] = []
    try:
        for family, _, _, _, address in _addresses(host, port):
            # All addresses of a host share the port that was picked for the first one.
            chosen = sockets[0].getsockname()[1] if sockets else port
            sockets.append(_listening(family, (address[0], chosen, *address[2:]), dual_stack=host == "::"))
    except OSError as error:
        for opened in sockets:
            opened.close()
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise StartupError(
            f"cannot listen on {host}, port {port}: {reason}; change WHOLETRACK_HOST or {setting}"
        ) from error
    return sockets


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, int, int, str, tuple[str | int, ...]]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys(found))  # type: ignore[arg-type] # of IPv4 and IPv6, addresses are tuples of str and int


def _listening(family: socket.AddressFamily, address: tuple[str | int, ...], *, dual_stack: bool) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual_stack)
        opened.bind(address)
        opened.listen(BACKLOG)
    except OSError:
        opened.close()
        raise
    return opened


def url_of(listening: socket.socket) -> str:
    """Return the address of a socket as a URL."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if listening.family == socket.AF_INET6 else f"http://{host}:{port}"
