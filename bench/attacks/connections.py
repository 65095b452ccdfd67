"""The service that is attacked, and connections that clients hold open."""

from __future__ import annotations

import selectors
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.attacks.tally import Tally

_N_HELD = 1500


@dataclass(frozen=True, slots=True)
class Target:
    """What is attacked.

    Attributes:
        host: Address of the service.
        port: Its port.
        recording: A recording whose prediction is a large response.
    """

    host: str
    port: int
    recording: Path

    def connect(self, *, receive_buffer_bytes: int | None = None) -> socket.socket:
        """Open a connection."""
        connection = socket.socket()
        if receive_buffer_bytes:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        connection.settimeout(10)
        connection.connect((self.host, self.port))
        return connection


def hold_connections(
    target: Target, end: float, tally: Tally, *, greeting: bytes = b"", keep: bytes | None = None
) -> None:
    """Open many connections, and open new ones when they are closed.

    Args:
        target: What to attack.
        end: Time of ``time.monotonic()`` at which to close them.
        tally: Counts connections and responses.
        greeting: What to send on each connection. Nothing is sent afterwards.
        keep: A connection is closed after a response, unless that begins with these bytes.
    """
    with selectors.DefaultSelector() as held:
        while time.monotonic() < end:
            with suppress(OSError):
                while len(held.get_map()) < _N_HELD and time.monotonic() < end:
                    connection = target.connect()
                    held.register(connection, selectors.EVENT_READ)
                    tally.connections += 1
                    connection.sendall(greeting)
                    connection.settimeout(0)
            for key, _ in held.select(0.05):
                connection = key.fileobj  # type: ignore[assignment]
                response = b""
                with suppress(OSError):
                    response = connection.recv(1 << 16)
                tally.count_response(response)
                if keep is None or not response.startswith(keep):
                    held.unregister(connection)
                    connection.close()
        for key in list(held.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
