"""The HTTP server around the application, and how it stops: nothing that was admitted is lost."""

from __future__ import annotations

import logging
import math
import time
from functools import partial
from types import FrameType

import uvicorn
from fastapi import FastAPI

from wholetrack.api.predict import Predictions
from wholetrack.server.connections import ConnectionLimits, GuardedProtocol
from wholetrack.settings import Settings

_log = logging.getLogger(__name__)


class DrainingServer(uvicorn.Server):
    """Answers what was admitted and tells everybody else to go elsewhere, before it closes its doors.

    uvicorn alone closes the door first: a request that a load balancer sends in the second before it notices would
    meet a refused connection. With nothing under way it closes at once. A second signal does not wait.
    """

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        limits = ConnectionLimits(
            most=settings.max_connections,
            head_bytes=settings.max_header_bytes,
            stalled_s=settings.client_timeout_s,
        )
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            server_header=False,
            http=partial(GuardedProtocol, limits=limits),  # type: ignore[arg-type] # called as a class is
            ws="none",
            timeout_graceful_shutdown=int(settings.shutdown_timeout_s),
        )
        super().__init__(config)
        self._app = app
        self._limit_s = settings.shutdown_timeout_s
        self._draining_since: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain at the first signal; stop at the second."""
        super().handle_exit(sig, frame)
        if self._draining_since is None and self.started:
            self._draining_since = time.monotonic()
            self.should_exit = False

    async def on_tick(self, counter: int) -> bool:
        """Every tenth of a second: whether it is time to close."""
        if self._draining_since is not None and not self.should_exit:
            self.should_exit = self._is_drained(time.monotonic() - self._draining_since)
        return await super().on_tick(counter)

    def _is_drained(self, seconds: float) -> bool:
        predictions: Predictions = self._app.state.predictions
        admission = predictions.admission
        if not admission.draining:
            admission.draining = True
            _log.info("draining: %d predictions under way", admission.under_way)
        if admission.under_way == 0:
            # The last answers may still be on their way to their clients.
            self.config.timeout_graceful_shutdown = max(1, math.ceil(self._limit_s - seconds))
            return True
        # What is left when the time is up is cancelled by uvicorn and told why.
        self.config.timeout_graceful_shutdown = 0
        return seconds >= self._limit_s
