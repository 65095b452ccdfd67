"""A uvicorn server that finishes all admitted predictions before it stops."""

from __future__ import annotations

import logging
import math
import time
from functools import partial
from types import FrameType
from typing import Protocol

import uvicorn
from starlette.types import ASGIApp

from wholetrack.server.limits import ConnectionLimits
from wholetrack.server.protocol import GuardedProtocol
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
    once. A second signal stops it without waiting.

    Args:
        app: The application.
        settings: Address, limits and timeouts.
        predictions: What to drain.
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
            http=partial(GuardedProtocol, limits=limits),  # type: ignore[arg-type] # uvicorn only calls it
            ws="none",
            timeout_graceful_shutdown=int(settings.shutdown_timeout_s),
        )
        super().__init__(config)
        self._predictions = predictions
        self._timeout_s = settings.shutdown_timeout_s
        self._draining_since: float | None = None

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
        return await super().on_tick(counter)

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
