"""A uvicorn server that finishes all admitted predictions before it stops."""

from __future__ import annotations

import logging
import math
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Protocol

import uvicorn
from starlette.types import ASGIApp

from wholetrack.server.limits import ConnectionLimits
from wholetrack.server.listening import BACKLOG, listening_sockets, url_of
from wholetrack.server.probes import ProbeListener
from wholetrack.server.protocol import GuardedProtocol
from wholetrack.server.waiting import WaitingConnections
from wholetrack.server.websocket import GuardedWebSocket
from wholetrack.settings import Settings

_log = logging.getLogger(__name__)


class Drainable(Protocol):
    """The predictions that must finish before the server stops.

    Attributes:
        draining: Whether new predictions are rejected; set by the server.
        in_progress: Number of predictions not yet finished.
    """

    draining: bool
    in_progress: int


class DrainingServer(uvicorn.Server):
    """Rejects new predictions after the first signal, and stops once those in progress have finished.

    uvicorn by itself stops listening first, so a request that a load balancer sends before it notices the shutdown
    would have its connection refused. This server keeps responding meanwhile. If nothing is in progress, it stops at
    once. A second signal stops it without waiting. Probes on their own port are answered until the end.

    Args:
        app: The application.
        settings: Address, limits and timeouts.
        predictions: What to drain.

    Raises:
        StartupError: If the address is not available.
    """

    def __init__(self, app: ASGIApp, settings: Settings, predictions: Drainable) -> None:
        limits = ConnectionLimits(
            max_connections=settings.max_connections,
            max_header_bytes=settings.max_header_bytes,
            timeout_s=settings.client_timeout_s,
            min_response_bytes_per_s=settings.min_response_bytes_per_s,
            request_timeout_s=settings.request_timeout_s,
        )
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            server_header=False,
            http=partial(GuardedProtocol, limits=limits, waiting=WaitingConnections()),  # type: ignore[arg-type] # uvicorn only calls it
            ws=partial(GuardedWebSocket, limits=limits),  # type: ignore[arg-type] # uvicorn only calls it
            ws_ping_interval=None,  # a client that sends nothing is disconnected anyway
            backlog=BACKLOG,
            timeout_keep_alive=settings.keep_alive_s,
            workers=1,  # uvicorn would read WEB_CONCURRENCY, which only its own command supports
            timeout_graceful_shutdown=int(settings.shutdown_timeout_s),
        )
        super().__init__(config)
        self._predictions = predictions
        self._timeout_s = settings.shutdown_timeout_s
        self._draining_since: float | None = None
        self._sockets = listening_sockets(settings.host, settings.port, setting="WHOLETRACK_PORT")
        self._probes = None
        if settings.probe_port:
            sockets = listening_sockets(settings.host, settings.probe_port, setting="WHOLETRACK_PROBE_PORT")
            self._probes = ProbeListener(app, sockets, limits)

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal arrives."""
        super().run(sockets or self._sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application and listen."""
        await super().startup(sockets)
        for listening in sockets or []:
            _log.info("listening on %s", url_of(listening))
        if self._probes:
            await self._probes.start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what is in progress and stop, the answers to probes last."""
        await super().shutdown(sockets)
        if self._probes:
            self._probes.close()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle SIGHUP like SIGTERM, unless it is ignored, as ``nohup`` does."""
        with super().capture_signals():
            previous = signal.getsignal(signal.SIGHUP)
            if previous is not signal.SIG_IGN:
                signal.signal(signal.SIGHUP, lambda _, frame: self.handle_exit(signal.SIGTERM, frame))
            try:
                yield
            finally:
                signal.signal(signal.SIGHUP, previous)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Start draining on the first signal; stop on the second."""
        super().handle_exit(sig, frame)
        if self._draining_since is None and self.started:
            self._draining_since = time.monotonic()
            self.should_exit = False

    async def on_tick(self, counter: int) -> bool:
        """Check every tenth of a second whether the server can stop."""
        if self._draining_since is not None and not self.should_exit:
            self.should_exit = self._is_drained(time.monotonic() - self._draining_since)
        should_exit = await super().on_tick(counter)
        if self._probes:
            self._probes.set_default_headers(self.server_state.default_headers)
        return should_exit

    def _is_drained(self, elapsed_s: float) -> bool:
        if not self._predictions.draining:
            self._predictions.draining = True
            _log.info("draining: %d predictions in progress", self._predictions.in_progress)
        if self._predictions.in_progress == 0:
            # Clients may not have received the last responses completely.
            self.config.timeout_graceful_shutdown = max(1, math.ceil(self._timeout_s - elapsed_s))
            return True
        # When the time is up, uvicorn cancels the remaining requests, and they respond with `draining`.
        self.config.timeout_graceful_shutdown = 0
        return elapsed_s >= self._timeout_s
