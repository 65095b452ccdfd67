"""A second port that answers health probes only, so that clients of the service cannot keep probes out."""

from __future__ import annotations

import asyncio
import logging
import socket
import uuid
from dataclasses import replace
from functools import partial

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from wholetrack.api.health import PROBE_PATHS
from wholetrack.api.problems import problem_response
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.server.limits import ConnectionLimits
from wholetrack.server.listening import BACKLOG, url_of
from wholetrack.server.protocol import GuardedProtocol
from wholetrack.server.waiting import WaitingConnections

_log = logging.getLogger(__name__)

# Supervisors and load balancers open a handful of connections and send their requests at once.
_MAX_CONNECTIONS = 64
_TIMEOUT_S = 2.0


class ProbeListener:
    """Listens for probes, with connections and limits of its own.

    Args:
        app: The application; only the paths of probes reach it.
        sockets: The sockets to listen on.
        limits: The limits of the main port, of which the one for headers applies here too.
    """

    def __init__(self, app: ASGIApp, sockets: list[socket.socket], limits: ConnectionLimits) -> None:
        self._sockets = sockets
        self._state = ServerState()
        self._servers: list[asyncio.Server] = []
        own_limits = replace(limits, max_connections=_MAX_CONNECTIONS, timeout_s=min(_TIMEOUT_S, limits.timeout_s))
        self._config = uvicorn.Config(
            OnlyProbes(app),
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            lifespan="off",
            workers=1,
        )
        self._protocol = partial(
            GuardedProtocol,
            limits=own_limits,
            waiting=WaitingConnections(),
            config=self._config,
            server_state=self._state,
            app_state={},
        )

    async def start(self) -> None:
        """Accept connections."""
        loop = asyncio.get_running_loop()
        for listening in self._sockets:
            self._servers.append(await loop.create_server(self._protocol, sock=listening, backlog=BACKLOG))
            _log.info("answering probes on %s", url_of(listening))

    def set_default_headers(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Set the headers that every response has, such as the date."""
        self._state.default_headers = headers

    def close(self) -> None:
        """Close the port and all connections."""
        for server in self._servers:
            server.close()
        for connection in list(self._state.connections):
            connection.shutdown()


class OnlyProbes:
    """Middleware that passes on requests for the paths of probes and answers all others with 404."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["path"].rstrip("/") in PROBE_PATHS:
            await self._app(scope, receive, send)
            return
        error = ServiceError(ErrorKind.NOT_FOUND, "This port is for health probes only.")
        request_id = uuid.uuid4().hex
        response = problem_response(error, headers={"X-Request-ID": request_id}, request_id=request_id)
        await response(scope, receive, send)
