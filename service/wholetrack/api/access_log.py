"""The access log: one record per request, and the number of requests in flight."""

from __future__ import annotations

import asyncio
import logging
import time
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wholetrack.api.health import PROBE_PATHS
from wholetrack.api.keys import key_of
from wholetrack.api.paths import route_path

_access_log = logging.getLogger("wholetrack.access")


class InFlight:
    """The number of requests without a complete response."""

    def __init__(self) -> None:
        self._count = 0
        self._none = asyncio.Event()
        self._none.set()

    def begin(self) -> None:
        """Count a request that has arrived."""
        self._count += 1
        self._none.clear()

    def end(self) -> None:
        """Count a request whose response is complete."""
        self._count -= 1
        if self._count == 0:
            self._none.set()

    async def wait_for_none(self, timeout_s: float) -> None:
        """Wait until no request is in flight, for at most ``timeout_s`` seconds."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._none.wait()
        except TimeoutError:
            _access_log.warning("%d requests did not get a response", self._count)


class AccessLog:
    """Middleware that logs the method, path, status, duration and API key name of every request and WebSocket.

    Health probes, which would outnumber all other requests, are logged at the level debug.
    """

    def __init__(self, app: ASGIApp, in_flight: InFlight) -> None:
        self._app = app
        self._in_flight = in_flight

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request and log it when its response is complete."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        status = 0

        async def recording_send(message: Message) -> None:
            nonlocal status
            if message["type"] in {"http.response.start", "websocket.http.response.start"}:
                status = message["status"]
            elif message["type"] == "websocket.accept":
                status = HTTPStatus.SWITCHING_PROTOCOLS
            await send(message)

        self._in_flight.begin()
        try:
            await self._app(scope, receive, recording_send)
        finally:
            self._in_flight.end()
            _log_request(scope, status, duration_s=time.monotonic() - began)


def _log_request(scope: Scope, status: int, *, duration_s: float) -> None:
    method = scope.get("method", "GET")
    fields = {
        "method": method,
        "path": scope["path"],
        "status": status,
        "ms": round(duration_s * 1e3, 1),
    }
    if key := key_of(scope):
        fields["key"] = key.identifier
    level = logging.DEBUG if route_path(scope) in PROBE_PATHS else logging.INFO
    _access_log.log(level, "%s %s %d", method, scope["path"], status, extra=fields)
