"""Connections that keep to limits: the head of a request comes in time and is of some size, and answers are taken.

uvicorn bounds neither: a head that never ends fills the memory, one that comes byte by byte holds a descriptor for
ever, and so does a client that reads no answer. What is refused here has no request yet that an application could see.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import struct
import termios
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from wholetrack.api.problems import problem_response
from wholetrack.errors import ErrorKind, ServiceError

_log = logging.getLogger(__name__)

# What asks for another protocol, or belongs to the connection alone.
_OF_THE_CONNECTION = frozenset({b"connection", b"upgrade", b"http2-settings"})

# Beyond those of clients, so that no crowd makes the service look dead to whoever would start it anew.
_CONNECTIONS_OF_PROBES = 16
_PROBES = (b"/healthz", b"/readyz")


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What a client may ask of the server before it is heard.

    Attributes:
        most: connections at a time; a few more are heard if they ask for health.
        head_bytes: of a request's line and headers, and of whatever else is no body, such as trailers.
        stalled_s: how long a head may take, an answer may not be taken, and the rest of a body may come that nobody
            wants, in seconds.
    """

    most: int
    head_bytes: int
    stalled_s: float


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits; what breaks them, or is no HTTP, is answered with a problem and the door.

    A connection answers a request, or one of its timers runs: no byte that a client sends prolongs its stay but a head
    that is complete. One request is heard at a time. A client that sends the next before it has its answer gets that
    answer and the door, and may ask again (RFC 9112, 9.3.2); a pipeline of uvicorn's has no end.
    """

    def __init__(self, *, limits: ConnectionLimits, **of_uvicorn: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(**of_uvicorn)
        self._limits = limits
        # Of bytes that are no body, since the last that were: what grows without end is a head, a trailer, a chunk's
        # extension.
        self._idle_bytes = 0
        self._head_bytes = 0
        self._receiving = False
        self._declines_upgrade = False
        self._deaf = False
        self._probes_only = False
        self._unsent_bytes = 0
        self._head = _Timer(self.loop, limits.stalled_s, self._head_is_late)
        self._rest = _Timer(self.loop, limits.stalled_s, self._rest_is_late)
        self._room = _Timer(self.loop, limits.stalled_s, self._look_at_answer)
        self._refusal = _NOT_HTTP

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a head, or refuse one connection too many."""
        super().connection_made(transport)
        # Nothing that waits to be sent goes unnoticed.
        transport.set_write_buffer_limits(high=0)
        too_many = len(self.connections) - self._limits.most
        if too_many > _CONNECTIONS_OF_PROBES:
            self._refuse(_TOO_MANY)
            return
        self._probes_only = too_many > 0
        self._head.start()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        for timer in (self._head, self._rest, self._room):
            timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, and refuse what only grows."""
        if self._deaf or self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        self._idle_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._stay_with_http(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(self._refusal)
        if self._idle_bytes > self._limits.head_bytes:
            self._refuse(_HEAD_TOO_LARGE)

    def on_message_begin(self) -> None:
        """A head begins.

        Raises:
            ValueError: while another request is being answered; the parser gives it back as an error of its own.
        """
        if self._answering:
            raise ValueError("one request at a time")
        self._idle_bytes = self._head_bytes = 0
        self._receiving = True
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Count a part of the address."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header or trailer."""
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head came in time.

        Raises:
            ValueError: if it does not say whom it asks, or asks on a connection that is for probes.
        """
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            self._declines_upgrade = True
            return
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
            raise ValueError("one host")
        if self._probes_only and self.url.partition(b"?")[0] not in _PROBES:
            self._refusal = _TOO_MANY
            raise ValueError("one connection too many")
        self._head.cancel()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """The body moves on."""
        self._idle_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """All of a request is there; if it was answered before that, the next head may come."""
        if self._declines_upgrade:
            return
        self._receiving = False
        self._rest.cancel()
        if self.cycle.response_complete:
            self._head.start()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The next head may come, after what is still on its way of a request that was answered early."""
        if not self.transport.is_closing():
            (self._rest if self._receiving else self._head).start()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The client takes its answer more slowly than it is written."""
        super().pause_writing()
        self._unsent_bytes = self._unsent()
        self._room.start()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._room.cancel()
        super().resume_writing()

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _stay_with_http(self, rest: bytes) -> None:
        """Hear a request that asks for another protocol as if it did not (RFC 9110, 7.8), its body included.

        Clients that hope for HTTP/2 ask every server (curl --http2, Java). The parser would take what follows for
        bytes of that protocol, and uvicorn for the next request.
        """
        wishes = b",".join(value for name, value in self.headers if name == b"connection").lower().split(b",")
        head = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        head += [b"%b: %b" % header for header in self.headers if header[0] not in _OF_THE_CONNECTION]
        if b"close" in map(bytes.strip, wishes):
            head.append(b"connection: close")
        self._declines_upgrade = False
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join((*head, b"", rest)))

    def _head_is_late(self) -> None:
        self._refuse(ServiceError(ErrorKind.REQUEST_TOO_SLOW, "The request's headers did not come in time."))

    def _rest_is_late(self) -> None:
        self.transport.close()

    def _unsent(self) -> int:
        """Bytes that the client has not confirmed, those included that wait in the kernel (tcp(7), SIOCOUTQ)."""
        waiting = int(self.transport.get_write_buffer_size())
        connection = self.transport.get_extra_info("socket")
        (in_kernel,) = struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)))
        return waiting + int(in_kernel)

    def _look_at_answer(self) -> None:
        unsent = self._unsent()
        if unsent >= self._unsent_bytes:
            _log.info("a client took nothing of its answer for %g s", self._limits.stalled_s)
            self.transport.abort()
            return
        self._unsent_bytes = unsent
        self._room.start()

    def _count(self, n_bytes: int) -> None:
        self._head_bytes += n_bytes
        if self._head_bytes > self._limits.head_bytes:
            self._refusal = _HEAD_TOO_LARGE
            raise ValueError("the parser gives this back as an error of its own")

    def _refuse(self, error: ServiceError) -> None:
        if self.transport.is_closing():
            return
        if self._answering and not self._receiving:
            # It comes behind a request that is being answered: that has its answer, and then the door.
            self._deaf = True
            self.cycle.keep_alive = False
            self.flow.pause_reading()
            return
        too_many = len(self.connections) > self._limits.most
        request_id = uuid.uuid4().hex
        _log.info("a connection was refused: %s", error.kind.code, extra={"connection": request_id})
        response = problem_response(error, request_id=request_id)
        lines = [
            STATUS_LINE[error.kind.status],
            *(b"%b: %b\r\n" % header for header in response.raw_headers),
            b"x-request-id: %b\r\nconnection: close\r\n\r\n" % request_id.encode(),
            bytes(response.body),
        ]
        self.transport.write(b"".join(lines))
        if self._answering or too_many:
            self.transport.close()
            return
        # Who is still sending would lose the answer to a reset (RFC 9112, 9.6): hear nothing, and close a little later.
        self._deaf = True
        self._head.cancel()
        self._rest.start()
        # Unless it was reset this very moment.
        with suppress(OSError):
            self.transport.write_eof()


class _Timer:
    """Calls once, so many seconds after it was started last."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, then: Callable[[], None]) -> None:
        self._loop, self._seconds, self._then = loop, seconds, then
        self._running: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin, or begin anew."""
        self.cancel()
        self._running = self._loop.call_later(self._seconds, self._then)

    def cancel(self) -> None:
        """Do not call."""
        if self._running:
            self._running.cancel()


_TOO_MANY = ServiceError(ErrorKind.OVERLOADED, "Too many connections are open.", retry_after_s=1)
_NOT_HTTP = ServiceError(ErrorKind.MALFORMED_REQUEST, "The request is not HTTP.")
_HEAD_TOO_LARGE = ServiceError(ErrorKind.HEADERS_TOO_LARGE, "The request's headers are too large.")
