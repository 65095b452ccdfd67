"""A WebSocket protocol for uvicorn that enforces limits on every connection.

uvicorn limits neither how many messages a client may send nor how long it may take to read what it is sent, and it
closes a connection at once when the server stops.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator
from contextlib import suppress
from typing import Any

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import ProtocolError
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import Protocol
from websockets.server import ServerProtocol

from wholetrack.server.limits import ConnectionLimits
from wholetrack.server.write_monitor import WriteMonitor

MAX_MESSAGE_BYTES = 1 << 20
"""Maximum size of a message from a client, in bytes."""

# The parser is written in Python and takes as long for an empty frame as for some hundred bytes.
_MIN_FRAME_BYTES = 256
_SMALL_FRAMES = 256
_CLOSE_TIMEOUT_S = 10.0
# As in `protocol`: what is ignored is read slowly.
_DISCARD_PAUSE_S = 0.01

# Information about each connection is in the access log. At the level debug, websockets would log the messages, which
# contain keys.
_log = logging.getLogger(__name__)
_log.setLevel(logging.WARNING)


class LimitedServerProtocol(ServerProtocol):
    """Parses frames, as long as they are not too many for their size.

    The connection begins after the HTTP request of the handshake, which has been parsed by then.
    """

    def __init__(self) -> None:
        super().__init__(max_size=MAX_MESSAGE_BYTES, logger=_log)
        self._credit_bytes = _SMALL_FRAMES * _MIN_FRAME_BYTES

    def parse(self) -> Generator[None]:
        """Parse frames, and no HTTP request before them."""
        return Protocol.parse(self)

    def recv_frame(self, frame: Frame) -> None:
        """Count and process a frame.

        Raises:
            ProtocolError: If there are too many small frames.
        """
        # Pings and pongs do not make up for others.
        n_bytes = len(frame.data) if frame.opcode in {Opcode.TEXT, Opcode.BINARY, Opcode.CONT} else 0
        credit = self._credit_bytes + n_bytes - _MIN_FRAME_BYTES
        self._credit_bytes = min(credit, _SMALL_FRAMES * _MIN_FRAME_BYTES)
        if credit < 0:
            raise ProtocolError(f"send at least {_MIN_FRAME_BYTES} bytes per message on average")
        super().recv_frame(frame)


class GuardedWebSocket(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol with limits.

    The application receives one message after the other; nothing more is read meanwhile. A client that does not read
    is disconnected as with HTTP. Messages are not compressed, because a small one could expand to a large one.

    Args:
        limits: Enforced on this connection.
        uvicorn_arguments: The arguments of uvicorn's protocol.
    """

    def __init__(self, *, limits: ConnectionLimits, **uvicorn_arguments: Any) -> None:  # noqa: ANN401 - uvicorn's types
        super().__init__(**uvicorn_arguments)
        self.logger = _log
        self.conn = LimitedServerProtocol()
        self.close_timeout = min(_CLOSE_TIMEOUT_S, limits.timeout_s)
        self._limits = limits
        self._write_monitor: WriteMonitor | None = None
        # What the client sent before it had the response to its handshake.
        self._early = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over a connection."""
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(high=0)
        self._write_monitor = WriteMonitor(self.loop, self.transport, self._limits)

    def open(self, request: Request) -> None:
        """Begin with the request of the handshake."""
        self.handle_connect(request)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop watching the client."""
        if self._write_monitor:
            self._write_monitor.stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse the data, or discard it after an error. Keep it until the application has accepted the connection.

        An error in the first frames would otherwise be reported before the response to the handshake.
        """
        if not self.handshake_complete:
            self._early += data
            self.transport.pause_reading()
        elif self.conn.parser_exc is None:
            super().data_received(data)
        elif not self.transport.is_closing():
            self.transport.pause_reading()
            self.loop.call_later(_DISCARD_PAUSE_S, self._resume_discarding)

    def pause_writing(self) -> None:
        """Watch whether the client reads what waits to be sent."""
        super().pause_writing()
        if self._write_monitor:
            # The time limit of a request does not apply to a connection that may last for hours.
            self._write_monitor.start(request_began=self.loop.time())

    def resume_writing(self) -> None:
        """Stop watching: everything has been sent."""
        if self._write_monitor:
            self._write_monitor.stop()
        super().resume_writing()

    async def send(self, message: ASGISendEvent) -> None:
        """Send a message of the application.

        Raises:
            ClientDisconnected: If the connection is closed, or about to be.
        """
        await self.writable.wait()
        if self.close_sent:
            raise ClientDisconnected
        await super().send(message)
        if message["type"] == "websocket.accept":
            self._parse_early()
        if message["type"] == "websocket.http.response.body":
            # uvicorn would report that there was no response.
            self.handshake_complete = True

    def handle_ping(self) -> None:
        """Answer a ping, unless the client does not read: the answers would fill the memory."""
        answer = b"".join(self.conn.data_to_send())
        if self.writable.is_set():
            self.transport.write(answer)

    def handle_parser_exception(self) -> None:
        """Tell the client why the connection ends, and give it time to read that.

        Closing while the client is still sending would reset the connection.
        """
        if self.close_sent:
            return
        close = self.conn.close_sent
        code, reason = (close.code, close.reason) if close else (1006, "")
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.close)
        # The client may have reset the connection in the meantime.
        with suppress(OSError):
            self.transport.write_eof()

    def shutdown(self) -> None:
        """Close the connection if the application has finished with it.

        Otherwise the application ends it, since it knows that the service is shutting down, or is cancelled.
        """
        if self.close_sent:
            self.transport.close()

    def _parse_early(self) -> None:
        early, self._early = self._early, b""
        if early and not self.transport.is_closing():
            self.transport.resume_reading()
            self.data_received(early)

    def _resume_discarding(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()
