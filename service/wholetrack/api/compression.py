"""Compressing responses for clients that accept gzip."""

from __future__ import annotations

import re

from starlette.datastructures import MutableHeaders
from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

# Smaller responses fit in one packet either way.
_MIN_BYTES = 1024
# Higher levels take much longer for responses that are hardly smaller.
_LEVEL = 4
# The scripts and styles of the documentation page are files, which would be compressed anew for every request.
# A stream of events would be delayed.
_NOT_COMPRESSED = (*DEFAULT_EXCLUDED_CONTENT_TYPES, "text/css", "text/javascript", "application/x-ndjson")
_REFUSED_GZIP = re.compile(r"\bgzip\s*;\s*q=0(\.0*)?\s*(,|$)", re.IGNORECASE)


class Compression(GZipMiddleware):
    """Middleware that compresses large responses, in a thread, for clients that accept it.

    In contrast to Starlette's, it does not compress for clients that refuse gzip with ``q=0``.
    """

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(
            app,
            minimum_size=_MIN_BYTES,
            compresslevel=_LEVEL,
            thread_minimum_size=_MIN_BYTES,
            exclude_content_types=_NOT_COMPRESSED,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] == "http":
            headers = MutableHeaders(scope=scope)
            if _REFUSED_GZIP.search(headers.get("Accept-Encoding", "")):
                headers["Accept-Encoding"] = "identity"
        await super().__call__(scope, receive, send)
