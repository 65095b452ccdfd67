"""Detecting clients that do not read their responses."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import struct
import termios

from wholetrack.server.limits import Timer

_log = logging.getLogger(__name__)


class WriteMonitor:
    """Aborts a connection if its client reads nothing of a response for too long.

    Args:
        loop: The event loop.
        transport: The connection.
        timeout_s: How long the client may read nothing while data is waiting to be sent, in seconds.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, timeout_s: float) -> None:
        self._transport = transport
        self._timeout_s = timeout_s
        self._unsent_bytes = 0
        self._timer = Timer(loop, timeout_s, self._check_progress)

    def start(self) -> None:
        """Start watching: data is waiting to be sent."""
        self._unsent_bytes = self._count_unsent()
        self._timer.start()

    def stop(self) -> None:
        """Stop watching: the client has caught up or disconnected."""
        self._timer.cancel()

    def _check_progress(self) -> None:
        unsent = self._count_unsent()
        if unsent >= self._unsent_bytes:
            _log.info("a client read nothing of its response for %g s", self._timeout_s)
            self._transport.abort()
            return
        self._unsent_bytes = unsent
        self._timer.start()

    def _count_unsent(self) -> int:
        """Return the bytes that the client has not acknowledged, including those in the kernel (tcp(7), SIOCOUTQ).

        The kernel buffers megabytes, so the transport's own buffer may not shrink even though the client is reading.
        """
        buffered = int(self._transport.get_write_buffer_size())
        connection = self._transport.get_extra_info("socket")
        (in_kernel,) = struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)))
        return buffered + int(in_kernel)
