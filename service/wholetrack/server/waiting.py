"""The connections that wait for a request, which are closed first if there are too many."""

from __future__ import annotations

import asyncio


class WaitingConnections:
    """The connections of one listener without a request in progress, in the order in which they began to wait.

    A client that opens connections and sends nothing would otherwise occupy all that the limit allows. Which of the
    waiting connections belong to such a client is unknown, but those of others rarely wait for long.
    """

    def __init__(self) -> None:
        self._transports: dict[asyncio.Transport, None] = {}

    def __len__(self) -> int:
        return len(self._transports)

    def add(self, transport: asyncio.Transport) -> None:
        """Add a connection that begins to wait."""
        self._transports.pop(transport, None)
        self._transports[transport] = None

    def discard(self, transport: asyncio.Transport) -> None:
        """Remove a connection that has a request or is closed, if it is there."""
        self._transports.pop(transport, None)

    def close_longest(self) -> bool:
        """Close the connection that has waited longest; return whether there was one."""
        for transport in self._transports:
            del self._transports[transport]
            transport.close()
            return True
        return False
