"""Every request as the service sees it: counted while it is under way, and one record when it is answered."""

from __future__ import annotations

import asyncio
import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wholetrack.api.keys import key_of

_access = logging.getLogger("wholetrack.access")


class InFlight:
    """How many requests are not fully answered."""

    def __init__(self) -> None:
        self._count = 0
        self._none = asyncio.Event()
        self._none.set()

    def begin(self) -> None:
        """One more."""
        self._count += 1
        self._none.clear()

    def end(self) -> None:
        """One less."""
        self._count -= 1
        if self._count == 0:
            self._none.set()

    async def wait_for_none(self, limit_s: float) -> None:
        """Return when all are answered, or after ``limit_s`` seconds."""
        try:
            async with asyncio.timeout(limit_s):
                await self._none.wait()
        except TimeoutError:
            _access.warning("%d requests are left unanswered", self._count)


class RequestRecords:
    """Middleware that writes a record for every request: what was asked, what was answered, how long it took."""

    def __init__(self, app: ASGIApp, in_flight: InFlight) -> None:
        self._app = app
        self._in_flight = in_flight

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and keep its record."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        status = 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._in_flight.begin()
        try:
            await self._app(scope, receive, noting)
        finally:
            self._in_flight.end()
            facts = {
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "ms": round((time.monotonic() - began) * 1e3, 1),
            }
            if key := key_of(scope):
                facts["key"] = key.identifier
            _access.info("%s %s %d", scope["method"], scope["path"], status, extra=facts)
