"""Response headers that restrict what browsers do with responses.

Browsers may only display them. The documentation page may also run the scripts that belong to it, and the start page
states its own policy.
"""

from __future__ import annotations

import base64
import hashlib
import re

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_INLINE_SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
_FIXED_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_DATA_POLICY = "default-src 'none'; frame-ancestors 'none'"


class SecurityHeaders:
    """Middleware that adds security headers to every response.

    Recordings may be private, so caches are told not to store responses about them. The inline scripts of a page are
    allowed by their hashes, so that injected scripts do not run.

    Args:
        app: The application.
        cross_origin: Whether pages of other origins may embed responses, as ``cors_origins`` implies.
    """

    def __init__(self, app: ASGIApp, *, cross_origin: bool) -> None:
        self._app = app
        self._resource_policy = "cross-origin" if cross_origin else "same-origin"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request and add the headers to its response."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        page_start: list[Message] = []

        async def adding_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_FIXED_HEADERS)
                headers["Cross-Origin-Resource-Policy"] = self._resource_policy
                headers.setdefault("Cache-Control", "no-store")
                is_page = headers.get("content-type", "").startswith("text/html")
                if is_page and "content-security-policy" not in headers:
                    page_start.append(message)
                    return
                headers.setdefault("Content-Security-Policy", _DATA_POLICY)
            elif page_start:
                # Hold back the headers until the scripts of the page are known. Pages are small: one body message each.
                MutableHeaders(scope=page_start[0])["Content-Security-Policy"] = page_policy(message["body"])
                await send(page_start.pop())
            await send(message)

        await self._app(scope, receive, adding_send)


def page_policy(html: bytes) -> str:
    """Return the content security policy of a page: resources of this host, and its own inline scripts and styles."""
    digests = (hashlib.sha256(script).digest() for script in _INLINE_SCRIPT.findall(html))
    scripts = " ".join(["'self'", *(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)])
    # Swagger UI sets inline styles and draws its icons from data URLs.
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
