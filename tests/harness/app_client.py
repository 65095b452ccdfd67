"""An application in this process, without a server, behind synchronous requests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi import FastAPI


class AppClient:
    """Sends requests to an application, whose event loop runs in another thread."""

    def __init__(self, portal: BlockingPortal, client: httpx.AsyncClient) -> None:
        self._portal = portal
        self._client = client

    def get(self, path: str) -> httpx.Response:
        """Send a GET request."""
        return self._portal.call(self._send, "GET", path, b"", {})

    def post(self, path: str, *, content: bytes, **parameters: object) -> httpx.Response:
        """Send a POST request with these query parameters."""
        return self._portal.call(
            self._send, "POST", path, content, {name: str(value) for name, value in parameters.items()}
        )

    async def _send(self, method: str, path: str, content: bytes, parameters: dict[str, str]) -> httpx.Response:
        return await self._client.request(method, path, content=content, params=parameters)


@contextmanager
def app_client(app: FastAPI) -> Iterator[AppClient]:
    """Start an application, and shut it down at the end of the block."""
    transport = httpx.ASGITransport(app)
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(app.router.lifespan_context(app)),
    ):
        client = httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=120)
        yield AppClient(portal, client)
        portal.call(client.aclose)
