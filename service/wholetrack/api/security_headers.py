"""What browsers may do with answers: nothing but show them, and of the documentation page run its own scripts."""

from __future__ import annotations

import base64
import hashlib
import re

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_INLINE_SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_NOTHING = "default-src 'none'; frame-ancestors 'none'"


class SecurityHeaders:
    """Middleware that adds the headers to every answer.

    Answers are about recordings that may be private: nobody on the way keeps them. Scripts of a page are allowed by
    their hashes, so that nothing else that gets into it runs.
    """

    def __init__(self, app: ASGIApp, *, for_other_origins: bool) -> None:
        self._app = app
        self._resources = "cross-origin" if for_other_origins else "same-origin"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and its answer back with headers."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        page: list[Message] = []

        async def adding(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_ALWAYS)
                headers["Cross-Origin-Resource-Policy"] = self._resources
                headers.setdefault("Cache-Control", "no-store")
                if headers.get("content-type", "").startswith("text/html"):
                    page.append(message)
                    return
                headers["Content-Security-Policy"] = _NOTHING
            elif page:
                # Pages are small, and one message each: their scripts must be known before their headers go out.
                MutableHeaders(scope=page[0])["Content-Security-Policy"] = page_policy(message["body"])
                await send(page.pop())
            await send(message)

        await self._app(scope, receive, adding)


def page_policy(html: bytes) -> str:
    """The policy for a page whose scripts, styles and pictures come from here, or stand in it."""
    digests = (hashlib.sha256(script).digest() for script in _INLINE_SCRIPT.findall(html))
    scripts = " ".join(["'self'", *(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)])
    # swagger-ui sets styles of elements, and draws its icons from data.
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
