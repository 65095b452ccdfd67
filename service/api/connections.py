"""Connections that keep to limits: the head of a request comes in time and is of some size, and answers are taken.

uvicorn bounds neither: a head that never ends fills the memory, one that comes byte by byte holds a descriptor for
ever, and so does a client that reads no answer. What is refused here has no request yet that an application could see.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from service.api.problems import problem_response
from service.errors import ErrorKind, ServiceError

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What a client may ask of the server before it is heard.

    Attributes:
        most: connections at a time.
        head_bytes: of a request's line and headers, and of whatever else is no body, such as trailers.
        stalled_s: how long a head may take, an answer may not be taken, and the rest of a body may come that nobody
            wants, in seconds.
    """

    most: int
    head_bytes: int
    stalled_s: float


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits; what breaks them, or is no HTTP, is answered with a problem and the door."""

    def __init__(self, *, limits: ConnectionLimits, **of_uvicorn: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(**of_uvicorn)
        self._limits = limits
        # Of bytes that are no body, since the last that were: what grows without end is a head, a trailer, a chunk's
        # extension.
        self._idle_bytes = 0
        self._head_bytes = 0
        self._receiving = False
        self._unsent_bytes = 0
        self._head = _Timer(self.loop, limits.stalled_s, self._head_is_late)
        self._rest = _Timer(self.loop, limits.stalled_s, self._rest_is_late)
        self._room = _Timer(self.loop, limits.stalled_s, self._look_at_answer)
        self._refusal = _NOT_HTTP
        self._answering: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a head, or refuse one connection too many."""
        super().connection_made(transport)
        if len(self.connections) > self._limits.most:
            self._refuse(ServiceError(ErrorKind.OVERLOADED, "Too many connections are open.", retry_after_s=1))
            return
        self._head.start()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        for timer in (self._head, self._rest, self._room):
            timer.cancel()
        # uvicorn tells the request that was parsed last, which may wait behind the one that is being answered.
        if self._answering and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, and refuse what only grows."""
        self._idle_bytes += len(data)
        super().data_received(data)
        if self._idle_bytes > self._limits.head_bytes and not self.transport.is_closing():
            self._refuse(_HEAD_TOO_LARGE)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, or what a callback of the parser has refused."""
        del msg
        self._refuse(self._refusal)

    def on_message_begin(self) -> None:
        """A head begins."""
        self._idle_bytes = self._head_bytes = 0
        self._receiving = True
        self._head.start()
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
        """The head came in time."""
        self._head.cancel()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """The body moves on."""
        self._idle_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """All of a request is there."""
        self._receiving = False
        self._rest.cancel()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """What is still on its way of a request that was answered early may come for a while, so that it is read."""
        if self._receiving and not self.transport.is_closing():
            self._rest.start()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The client takes its answer more slowly than it is written."""
        super().pause_writing()
        self._unsent_bytes = self.transport.get_write_buffer_size()
        self._room.start()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._room.cancel()
        super().resume_writing()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def _head_is_late(self) -> None:
        if self.flow.read_paused:
            # It waits until the request before it is answered: that is not the client's doing.
            self._head.start()
            return
        self._refuse(ServiceError(ErrorKind.REQUEST_TOO_SLOW, "The request's headers did not come in time."))

    def _rest_is_late(self) -> None:
        self.transport.close()

    def _look_at_answer(self) -> None:
        unsent = self.transport.get_write_buffer_size()
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
        self.transport.close()


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


_NOT_HTTP = ServiceError(ErrorKind.MALFORMED_REQUEST, "The request is not HTTP.")
_HEAD_TOO_LARGE = ServiceError(ErrorKind.HEADERS_TOO_LARGE, "The request's headers are too large.")
