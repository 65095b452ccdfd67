"""The documentation page and the OpenAPI document, with the address at which the client reaches the service."""

from __future__ import annotations

import re
from typing import Any

from fastapi import FastAPI, Request
from fastapi_offline import FastAPIOffline
from starlette.responses import JSONResponse
from starlette.routing import Route

from wholetrack import __version__
from wholetrack.api.start_page import ROUTES

_DESCRIPTION = """Predicts the music genre of a whole recording, where the genre changes, and how sure the model is.

`curl -F file=@song.mp3 {address}/v1/predict`

Every error is an `application/problem+json` response with a stable `code`."""
# A name or an IP address, with or without a port. The page shows nothing else that a client writes there.
_HOST = re.compile(r"[A-Za-z0-9._-]+(:\d+)?|\[[0-9A-Fa-f:.]+\](:\d+)?")


def documented_app(*, root_path: str, **arguments: Any) -> FastAPI:  # noqa: ANN401 - FastAPI's types
    """Create an application that documents itself, with the page for people at ``/``.

    Args:
        root_path: Path prefix of the service, without a trailing slash.
        arguments: Further arguments of :class:`FastAPI`.
    """
    # FastAPI's own documentation page loads its scripts from another host; this one includes them.
    return FastAPIOffline(
        title="wholetrack",
        version=__version__,
        description=_DESCRIPTION,
        redoc_url=None,
        # A redirect for a trailing slash would go to the host in the Host header, which the client chooses.
        redirect_slashes=False,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        root_path=root_path,
        # The first of several routes with the same path is used, so this one replaces FastAPI's.
        routes=[Route("/openapi.json", _openapi), *ROUTES],
        **arguments,
    )


async def _openapi(request: Request) -> JSONResponse:
    """Return the OpenAPI document with the address of this service."""
    app: FastAPI = request.app
    document = app.openapi()
    info = document["info"] | {"description": _DESCRIPTION.format(address=_address(request))}
    root_path = request.scope["root_path"]
    return JSONResponse(document | {"info": info} | ({"servers": [{"url": root_path}]} if root_path else {}))


def _address(request: Request) -> str:
    """Return the URL of the service as the client knows it, without a trailing slash.

    Only the text of the page depends on it, so headers of proxies are used without knowing whether one sent them.
    """
    headers = request.headers
    # If there are several proxies, the first one comes first.
    host = headers.get("x-forwarded-host", headers.get("host", "")).partition(",")[0].strip()
    if not _HOST.fullmatch(host):
        host = "127.0.0.1:8000"
    scheme = headers.get("x-forwarded-proto", request.url.scheme).partition(",")[0].strip()
    if scheme not in {"http", "https"}:
        scheme = request.url.scheme
    return f"{scheme}://{host}{request.scope['root_path']}"
