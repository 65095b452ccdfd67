"""An HTTP protocol for uvicorn that enforces limits on every connection.

uvicorn limits neither the size of request headers, which could fill the memory, nor the time that they may take. A
client could occupy a file descriptor forever by sending one byte at a time, or by never reading a response.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from contextlib import suppress
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from wholetrack.errors import ServiceError
from wholetrack.server.limits import ConnectionLimits, HeaderBudget, Timer
from wholetrack.server.refusals import headers_too_large, headers_too_slow, not_http, refusal, too_many_connections
from wholetrack.server.upgrades import headers_without_upgrade
from wholetrack.server.waiting import WaitingConnections
from wholetrack.server.write_monitor import WriteMonitor

_log = logging.getLogger(__name__)

# Connections beyond max_connections that are left for probes if all others have a request in progress. Otherwise a
# burst of clients would make the service look dead to a supervisor, which would then restart it.
_PROBE_CONNECTIONS = 16
_PROBE_PATHS = (b"/healthz", b"/readyz")


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
        self._header_budget = HeaderBudget(limits.max_header_bytes)
        self._headers_timer = Timer(self.loop, limits.timeout_s, self._refuse_slow_headers)
        # Runs while input is discarded: the rest of a body after an early response, or anything after a refusal.
        self._discard_timer = Timer(self.loop, limits.timeout_s, self._close)
        self._write_monitor: WriteMonitor | None = None
        self._receiving_request = False
        self._ignore_input = False
        self._is_upgrade_request = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection and wait for the headers of a request, or refuse it if there are too many."""
        super().connection_made(transport)
        # Call pause_writing as soon as anything waits to be sent, so that the write monitor sees all of it.
        transport.set_write_buffer_limits(high=0)
        self._write_monitor = WriteMonitor(self.loop, transport, self._limits.timeout_s)
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
        """Parse the data; refuse what is not HTTP or exceeds the header limit."""
        if self._ignore_input or self.transport.is_closing():
            return
        if self.timeout_keep_alive_task and not self._receiving_request:
            # The connection was idle, and the client has begun to send its next request.
            self._headers_timer.start()
        self._unset_keepalive_if_required()
        self._header_budget.count_read(len(data))
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._parse_without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            # httptools reports an exception of one of the callbacks below as the context of its own.
            self._refuse(error.__context__ if isinstance(error.__context__, ServiceError) else not_http())
        if self._header_budget.exceeded:
            self._refuse(headers_too_large())

    def pause_writing(self) -> None:
        """Watch whether the client reads the data that waits to be sent."""
        super().pause_writing()
        if self._write_monitor:
            self._write_monitor.start()

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
        self._header_budget.start_request()
        self._receiving_request = True
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Count a part of the URL."""
        self._count_header(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header or trailer."""
        self._count_header(len(name) + len(value))
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
        n_hosts = sum(name == b"host" for name, _ in self.headers)
        if n_hosts > 1 or (n_hosts == 0 and self.parser.get_http_version() == "1.1"):
            raise ValueError("a request must name one host")
        n_busy = len(self.connections) - len(self._waiting)
        if n_busy >= self._limits.max_connections and self.url.partition(b"?")[0] not in _PROBE_PATHS:
            raise too_many_connections()
        self._headers_timer.cancel()
        self._waiting.discard(self.transport)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Receive a part of the body."""
        self._header_budget.count_body()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Finish receiving the request. If it already has its response, the next request may follow."""
        if self._is_upgrade_request:
            return
        self._receiving_request = False
        self._discard_timer.cancel()
        if self.cycle.response_complete:
            self._headers_timer.start()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the rest of the body if the response came before its end."""
        if not self.transport.is_closing():
            self._waiting.add(self.transport)
            if self._receiving_request:
                self._discard_timer.start()
        super().on_response_complete()

    @property
    def _response_pending(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _n_above_limit(self) -> int:
        return len(self.connections) - self._limits.max_connections

    def _count_header(self, n_bytes: int) -> None:
        self._header_budget.count_header(n_bytes)
        if self._header_budget.exceeded:
            raise headers_too_large()

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
        self.transport.write(refusal(error, request_id=request_id))
        if self._response_pending or self._n_above_limit > 0:
            self._close()
        else:
            self._close_later()

    def _close_later(self) -> None:
        """Close the connection after the discard timeout, and ignore what the client sends until then.

        Closing while the client is still sending would reset the connection, and the client might not be able to read
        the response (RFC 9112, 9.6).
        """
        self._ignore_input = True
        self._headers_timer.cancel()
        self._discard_timer.start()
        # The client may have reset the connection in the meantime.
        with suppress(OSError):
            self.transport.write_eof()

    def _refuse_slow_headers(self) -> None:
        self._refuse(headers_too_slow())

    def _close(self) -> None:
        self.transport.close()
