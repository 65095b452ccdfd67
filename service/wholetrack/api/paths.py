"""Paths of requests: without a trailing slash, and with the prefix of a proxy whether or not it was removed."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class NormalPaths:
    """Middleware that gives every request the path that its route has.

    A path with a trailing slash is treated as the one without, and answered without a redirect. The path prefix of the
    service (``root_path``) is added if the proxy has removed it, since ASGI paths include it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] in {"http", "websocket"}:
            scope["path"] = scope.get("root_path", "") + (route_path(scope).rstrip("/") or "/")
        await self._app(scope, receive, send)


def route_path(scope: Scope) -> str:
    """Return the path of a request without the path prefix of the service, as routes define it."""
    root_path, path = scope.get("root_path", ""), str(scope["path"])
    return path.removeprefix(root_path) if f"{path}/".startswith(f"{root_path}/") else path
