"""Detecting clients that do not read their responses, or read them too slowly."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import socket
import struct
import termios

from wholetrack.server.limits import ConnectionLimits

_log = logging.getLogger(__name__)

# By default the kernel buffers megabytes for each connection. A response that fits counts as sent, and if its client
# does not read it, the kernel keeps it even after the connection is closed. The kernel doubles this value.
_KERNEL_BUFFER_BYTES = 128 << 10


class WriteMonitor:
    """Aborts a connection if its client reads a response more slowly than the minimum average rate.

    The rate is enforced once a grace time has passed. After that time, the response must also be complete within the
    time limit of its request.

    Args:
        loop: The event loop.
        transport: The connection.
        limits: The grace time, the minimum rate and the time limit.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, limits: ConnectionLimits) -> None:
        self._loop = loop
        self._transport = transport
        self._limits = limits
        self._grace_end = 0.0
        self._request_end = 0.0
        self._unsent_bytes = 0
        self._handle: asyncio.TimerHandle | None = None
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BUFFER_BYTES)

    def start(self, *, request_began: float) -> None:
        """Start watching: data is waiting to be sent.

        Args:
            request_began: When the request began, by the clock of the event loop.
        """
        self.stop()
        self._grace_end = self._loop.time() + self._limits.timeout_s
        self._request_end = request_began + self._limits.request_timeout_s
        self._unsent_bytes = self._count_unsent()
        self._handle = self._loop.call_at(self._grace_end, self._check_progress)

    def stop(self) -> None:
        """Stop watching: the client has caught up or disconnected."""
        if self._handle:
            self._handle.cancel()

    def _check_progress(self) -> None:
        """Abort the connection if its time is up; else check again when it would be up if nothing more were read."""
        n_read = self._unsent_bytes - self._count_unsent()
        end = self._grace_end + max(0, n_read) / self._limits.min_response_bytes_per_s
        if self._loop.time() >= max(self._grace_end, min(end, self._request_end)):
            _log.info("a client read its response too slowly: %d bytes", n_read)
            self._reset()
            return
        self._handle = self._loop.call_at(min(end, self._request_end), self._check_progress)

    def _reset(self) -> None:
        """Abort the connection. Otherwise the kernel would keep what it has buffered until the client reads it."""
        connection = self._transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def _count_unsent(self) -> int:
        """Return the bytes that the client has not acknowledged, including those in the kernel (tcp(7), SIOCOUTQ).

        The client may be reading even though the transport's own buffer does not shrink.
        """
        buffered = int(self._transport.get_write_buffer_size())
        connection = self._transport.get_extra_info("socket")
        (in_kernel,) = struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)))
        return buffered + int(in_kernel)
