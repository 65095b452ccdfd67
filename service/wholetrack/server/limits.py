"""The limits of a connection, and what enforces them: a timer and a byte counter."""

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
            longer needed, and to read any part of a response, in seconds.
    """

    max_connections: int
    max_header_bytes: int
    timeout_s: float


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


class HeaderBudget:
    """Counts the bytes of a request that are not its body.

    Two counters are needed. Bytes that the parser has reported as parts of headers are counted exactly, even if a body
    follows in the same read. Bytes of a header line or chunk extension that never ends are not reported at all, so
    everything read since the last part of a body is counted as well.

    Args:
        max_bytes: Limit for either counter.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._read_bytes = 0
        self._header_bytes = 0

    @property
    def exceeded(self) -> bool:
        """Whether the limit has been exceeded."""
        return max(self._read_bytes, self._header_bytes) > self._max_bytes

    def start_request(self) -> None:
        """Start from zero for the next request."""
        self._read_bytes = self._header_bytes = 0

    def count_read(self, n_bytes: int) -> None:
        """Count bytes read from the client, whatever they are."""
        self._read_bytes += n_bytes

    def count_header(self, n_bytes: int) -> None:
        """Count bytes that the parser has reported as part of the request line, a header or a trailer."""
        self._header_bytes += n_bytes

    def count_body(self) -> None:
        """Note that part of a body has arrived."""
        self._read_bytes = 0
