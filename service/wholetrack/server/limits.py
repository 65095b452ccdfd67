"""The limits of a connection, and a timer that enforces those on time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits on what a client may use of the server.

    Attributes:
        max_connections: Concurrent connections with a request; a few more are accepted for health probes.
        max_header_bytes: Size of everything in a request that is not its body: the request line, headers, trailers and
            chunk extensions.
        timeout_s: How long a client may take to send the headers of a request, to send the rest of a body that is no
            longer needed, and to read a response at less than the minimum rate, in seconds.
        min_response_bytes_per_s: Minimum average rate at which a client reads a response.
        request_timeout_s: Time limit of a request, including its response, in seconds.
    """

    max_connections: int
    max_header_bytes: int
    timeout_s: float
    min_response_bytes_per_s: int
    request_timeout_s: float


class Timer:
    """Calls a function once, a fixed time after the timer was last started.

    Args:
        loop: The event loop that calls the function.
        delay_s: The time in seconds.
        callback: The function.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, delay_s: float, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._delay_s = delay_s
        self._callback = callback
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start the timer, or restart it if it is running."""
        self.cancel()
        self._handle = self._loop.call_later(self._delay_s, self._callback)

    def cancel(self) -> None:
        """Stop the timer if it is running."""
        if self._handle:
            self._handle.cancel()
