"""An HTTP protocol for uvicorn that enforces limits on every connection.

uvicorn limits neither the size of request headers, which could fill the memory, nor the time that they may take. A
client could occupy a file descriptor forever by sending one byte at a time, or by never reading a response, and the
event loop by sending thousands of headers or of one-byte chunks.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from contextlib import suppress
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from websockets.http11 import Request

from wholetrack.errors import ServiceError
from wholetrack.server.limits import ConnectionLimits, Timer
from wholetrack.server.refusals import headers_too_slow, not_http, refusal, too_many_connections
from wholetrack.server.request_budget import RequestBudget
from wholetrack.server.response_transport import ResponseTransport
from wholetrack.server.upgrades import headers_without_upgrade, websocket_request
from wholetrack.server.waiting import WaitingConnections
from wholetrack.server.websocket import GuardedWebSocket
from wholetrack.server.write_monitor import WriteMonitor

_log = logging.getLogger(__name__)

# Connections beyond max_connections that are left for probes if all others have a request in progress. Otherwise a
# burst of clients would make the service look dead to a supervisor, which would then restart it.
_PROBE_CONNECTIONS = 16
_PROBE_PATHS = (b"/healthz", b"/readyz")
# The event loop reads up to 250 kB at a time, so input that is discarded is read at up to 25 MB/s. After an early
# response the first megabyte of the body is not delayed, so that a client that sends all of it first is not held up.
_DISCARD_PAUSE_S = 0.01
_UNDELAYED_BYTES = 1 << 20


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with limits. If a request exceeds one, it gets a problem and the connection is closed.

    At any time, a connection either has a request in progress or one of its timers is running. Between requests, that
    is uvicorn's timer for idle connections, until the client sends anything. From then on, and on a new connection, the
    headers of the request are due; bytes that do not complete them do not prolong the connection.

    If there are too many connections, the one that has waited longest for a request is closed. A request is refused if
    as many others are in progress as connections are allowed, unless it is a probe.

    Requests are not pipelined, since uvicorn puts no limit on its pipeline. If a client sends another request before it
    has received a response, the connection closes after that response, and the client may retry (RFC 9112, 9.3.2).

    Args:
        limits: Enforced on this connection.
        waiting: The connections of the same listener that wait for a request.
        uvicorn_arguments: The arguments of uvicorn's protocol.
    """

    def __init__(
        self,
        *,
        limits: ConnectionLimits,
        waiting: WaitingConnections,
        **uvicorn_arguments: Any,  # noqa: ANN401 - uvicorn's types
    ) -> None:
        super().__init__(**uvicorn_arguments)
        self._limits = limits
        self._waiting = waiting
        self._budget = RequestBudget(limits.max_header_bytes)
        self._request_began = self.loop.time()
        # Parts of the body from the current read.
        self._body_parts: list[bytes] = []
        self._discarded_bytes = 0
        self._headers_timer = Timer(self.loop, limits.timeout_s, self._refuse_slow_headers)
        # Runs while input is discarded: the rest of a body after an early response, or anything after a refusal.
        self._discard_timer = Timer(self.loop, limits.timeout_s, self._stop_discarding)
        self._write_monitor: WriteMonitor | None = None
        self._receiving_request = False
        self._receiving_body = False
        self._ignore_input = False
        self._is_upgrade_request = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection and wait for the headers of a request, or refuse it if there are too many."""
        super().connection_made(transport)
        # Call pause_writing as soon as anything waits to be sent, so that the write monitor sees all of it.
        transport.set_write_buffer_limits(high=0)
        self._write_monitor = WriteMonitor(self.loop, transport, self._limits)
        if self._n_above_limit > _PROBE_CONNECTIONS and not self._waiting.close_longest():
            self._refuse(too_many_connections())
            return
        self._waiting.add(transport)
        self._headers_timer.start()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers."""
        self._headers_timer.cancel()
        self._discard_timer.cancel()
        if self._write_monitor:
            self._write_monitor.stop()
        self._waiting.discard(self.transport)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse the data; refuse what is not HTTP or exceeds a limit."""
        if self.transport.is_closing():
            return
        if self._ignore_input:
            self._pace_discarding()
            return
        if self.timeout_keep_alive_task and not self._receiving_request:
            # The connection was idle, and the client has begun to send its next request.
            self._headers_timer.start()
        self._unset_keepalive_if_required()
        self._budget.count_read(len(data))
        try:
            self.parser.feed_data(data)
            self._budget.check_read()
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            # httptools reports an exception of one of the callbacks below as the context of its own.
            self._refuse(error.__context__ if isinstance(error.__context__, ServiceError) else not_http())
        except ServiceError as error:
            self._refuse(error)
        self._deliver_body()
        if self._discarded_bytes > _UNDELAYED_BYTES:
            self._pace_discarding()

    def pause_writing(self) -> None:
        """Watch whether the client reads the data that waits to be sent."""
        super().pause_writing()
        if self._write_monitor:
            self._write_monitor.start(request_began=self._request_began)

    def resume_writing(self) -> None:
        """Stop watching: everything has been sent."""
        if self._write_monitor:
            self._write_monitor.stop()
        super().resume_writing()

    def on_message_begin(self) -> None:
        """Begin a request.

        Raises:
            ValueError: If another request is still in progress.
        """
        if self._response_pending:
            raise ValueError("requests are not pipelined")
        self._budget.start_request()
        self._request_began = self.loop.time()
        self._receiving_request = True
        self._discarded_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Count a part of the URL."""
        self._budget.count_url(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header or trailer."""
        self._budget.count_header(name, value)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start processing the request.

        Raises:
            ValueError: If it does not name exactly one host.
            ServiceError: ``overloaded`` if too many requests are in progress and this is not a probe.
        """
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            self._is_upgrade_request = True
            return
        self._check_request()
        self._headers_timer.cancel()
        self._waiting.discard(self.transport)
        super().on_headers_complete()
        self._receiving_body = True
        self.cycle.transport = ResponseTransport(self.transport, self._close_after_response)  # type: ignore[assignment]

    def _check_request(self) -> None:
        """Check a request whose headers are complete, before the application sees it.

        Raises:
            ValueError: If it does not name exactly one host.
            ServiceError: ``overloaded`` if too many requests are in progress and this is not a probe, or another error
                about its query.
        """
        n_hosts = sum(name == b"host" for name, _ in self.headers)
        if n_hosts > 1 or (n_hosts == 0 and self.parser.get_http_version() == "1.1"):
            raise ValueError("a request must name one host")
        n_busy = len(self.connections) - len(self._waiting)
        if n_busy >= self._limits.max_connections and self.url.partition(b"?")[0] not in _PROBE_PATHS:
            raise too_many_connections()
        self._budget.check_query(self.url)

    def on_chunk_header(self) -> None:
        """Count a chunk of the body."""
        self._budget.count_chunk()

    def on_body(self, body: bytes) -> None:
        """Receive a part of the body, unless it is no longer needed."""
        self._budget.count_body(len(body))
        if self._response_pending:
            self._body_parts.append(body)
        else:
            self._discarded_bytes += len(body)

    def on_message_complete(self) -> None:
        """Finish receiving the request. If it already has its response, the next request may follow."""
        if self._is_upgrade_request:
            return
        self._receiving_request = self._receiving_body = False
        self._deliver_body()
        self._discard_timer.cancel()
        if self.cycle.response_complete:
            self._headers_timer.start()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the rest of the body if the response came before its end."""
        if not self.transport.is_closing() and not self._ignore_input:
            self._waiting.add(self.transport)
            if self._receiving_request:
                self._discard_timer.start()
        super().on_response_complete()

    def shutdown(self) -> None:
        """Close the connection, once the response is complete if one is pending."""
        if self._response_pending:
            super().shutdown()
        else:
            self._close()

    @property
    def _response_pending(self) -> bool:
        return self.cycle is not None and not (self.cycle.response_complete or self.cycle.disconnected)

    @property
    def _n_above_limit(self) -> int:
        return len(self.connections) - self._limits.max_connections

    def _deliver_body(self) -> None:
        """Pass on what has been received of the body at once, however many chunks it was sent in."""
        if not self._body_parts:
            return
        body = b"".join(self._body_parts)
        self._body_parts.clear()
        if self.cycle.body:
            super().on_body(body)
        else:
            # uvicorn would copy it into a bytearray, and from there into bytes for the application.
            self.cycle.body = body  # type: ignore[assignment]
            super().on_body(b"")

    def _upgrade(self, rest: bytes) -> None:
        """Switch to WebSocket if the request is for that; ``rest`` follows its headers."""
        request = websocket_request(self.parser, self.url, self.headers) if self.ws_protocol_class else None
        if request is None:
            self._parse_without_upgrade(rest)
            return
        try:
            self._check_request()
        except ServiceError as error:
            self._refuse(error)
        except ValueError:
            self._refuse(not_http())
        else:
            self._open_websocket(request, rest)

    def _open_websocket(self, request: Request, rest: bytes) -> None:
        """Hand the connection over to a WebSocket, which counts as a request in progress until it is closed."""
        self._headers_timer.cancel()
        self._waiting.discard(self.transport)
        self.connections.discard(self)
        assert self.ws_protocol_class
        websocket: GuardedWebSocket = self.ws_protocol_class(  # type: ignore[call-arg, assignment]
            config=self.config, server_state=self.server_state, app_state=self.app_state
        )
        if self._write_monitor:
            self._write_monitor.stop()
        websocket.connection_made(self.transport)
        self.transport.set_protocol(websocket)
        if self.transport.get_write_buffer_size():
            # The client has not read all of the previous response.
            websocket.pause_writing()
        websocket.open(request)
        if rest:
            websocket.data_received(rest)

    def _parse_without_upgrade(self, rest: bytes) -> None:
        """Parse a request for an upgrade again, as if it had not asked for one; ``rest`` follows its headers."""
        headers = headers_without_upgrade(self.parser, self.url, self.headers)
        self._is_upgrade_request = False
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(headers + rest)

    def _refuse(self, error: ServiceError) -> None:
        """Send a problem response, unless another response is pending, and close the connection."""
        if self._ignore_input or self.transport.is_closing():
            return
        if self._response_pending and not self._receiving_request:
            # The refused data follows a complete request, which still gets its response.
            self._ignore_input = True
            self.cycle.keep_alive = False
            self.flow.pause_reading()
            return
        request_id = uuid.uuid4().hex
        _log.info("refused a connection: %s", error.kind.code, extra={"connection": request_id})
        if not (self._receiving_body and self.cycle.response_started):
            self.transport.write(refusal(error, request_id=request_id))
        if self._response_pending:
            # Stop the application. What it sends is dropped.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._close_later()

    def _close_after_response(self) -> None:
        """Close the connection after a response that announced it."""
        if self._receiving_body or self._ignore_input:
            self._close_later()
        else:
            self._close()

    def _close_later(self) -> None:
        """Close the connection after the discard timeout, and ignore what the client sends until then.

        Closing while the client is still sending would reset the connection, and the client might not be able to read
        the response (RFC 9112, 9.6).
        """
        self._ignore_input = True
        self._body_parts.clear()
        # It is closed earlier if there are too many connections.
        self._waiting.add(self.transport)
        self._headers_timer.cancel()
        self._discard_timer.start()
        self.flow.resume_reading()
        # The client may have reset the connection in the meantime.
        with suppress(OSError):
            self.transport.write_eof()

    def _pace_discarding(self) -> None:
        """Read the next part of ignored input only after a pause, so that it takes hardly any time."""
        self.flow.pause_reading()
        self.loop.call_later(_DISCARD_PAUSE_S, self._resume_discarding)

    def _resume_discarding(self) -> None:
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def _stop_discarding(self) -> None:
        if self._ignore_input:
            self._close()
        else:
            # A client that has not finished sending may not have begun to read the response.
            self._close_later()

    def _refuse_slow_headers(self) -> None:
        self._refuse(headers_too_slow())

    def _close(self) -> None:
        self.transport.close()
