"""``GET /``: the page that shows predictions, and the files that belong to it.

``page/`` in the repository contains its source. The built files are part of the package.
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route

from wholetrack.errors import ErrorKind, ServiceError

_FOLDER = Path(__file__).parent / "page"
_MEDIA_TYPES = {
    ".js": "text/javascript",
    ".css": "text/css",
    ".woff2": "font/woff2",
    ".txt": "text/plain",
}
# The names contain hashes of the contents.
# A name or an IPv4 address. In the others, which are rare, WebSockets need a browser for which 'self' includes them.
_HOST = re.compile(r"[A-Za-z0-9.-]+(:\d+)?")
_CACHE_CONTROL = "public, max-age=31536000, immutable"


async def _page(request: Request) -> Response:
    nonce = secrets.token_urlsafe(16)
    root = f"{request.scope['root_path']}/"
    html = _HTML.replace("{{root}}", root).replace("{{nonce}}", nonce)
    return HTMLResponse(html, headers={"Content-Security-Policy": _policy(nonce, _sockets(request))})


def _sockets(request: Request) -> str:
    """Return the sources of WebSockets of this host, which ``'self'`` does not include in every browser."""
    host = request.headers.get("host", "")
    return f" ws://{host} wss://{host}" if _HOST.fullmatch(host) else ""


def _policy(nonce: str, sockets: str) -> str:
    """Return the content security policy of the page: nothing from other hosts, and no inline scripts.

    The style of wavesurfer.js has the nonce. Recordings are played, and results saved, through blob URLs.
    """
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonce}'; font-src 'self'; img-src data:; "
        f"media-src blob:; connect-src 'self'{sockets}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


async def _file(request: Request) -> Response:
    found = _FILES.get(request.path_params["name"])
    if found is None:
        raise ServiceError(ErrorKind.NOT_FOUND, "See /docs for the paths of this service.")
    media_type = _MEDIA_TYPES[found.suffix]
    return FileResponse(found, media_type=media_type, headers={"Cache-Control": _CACHE_CONTROL})


_HTML = (_FOLDER / "index.html").read_text()
_FILES = {path.name: path for path in _FOLDER.iterdir() if path.suffix in _MEDIA_TYPES}

ROUTES = [Route("/", _page), Route("/page/{name}", _file)]
"""Routes that need no key, because they contain nothing about recordings."""
