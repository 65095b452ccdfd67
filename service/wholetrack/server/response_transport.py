"""The part of a transport that a response is written to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class ResponseTransport:
    """Writes a response to a connection, and leaves it to the connection how to close after it.

    uvicorn closes the transport as soon as the response is written. If the client is still sending its request, that
    resets the connection, and the client may not be able to read the response.

    Args:
        transport: The transport of the connection.
        close: Closes the connection.
    """

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close
