"""Declining requests to upgrade a connection to another protocol."""

from __future__ import annotations

from collections.abc import Sequence

import httptools

# Headers that request an upgrade, or that apply to a single connection only.
_CONNECTION_HEADERS = frozenset({b"connection", b"upgrade", b"http2-settings"})


def headers_without_upgrade(
    parser: httptools.HttpRequestParser, url: bytes, headers: Sequence[tuple[bytes, bytes]]
) -> bytes:
    """Return the request line and headers of a request as if it had not asked for an upgrade (RFC 9110, 7.8).

    Clients that prefer HTTP/2 ask every server for it (curl --http2, Java). Their requests must be parsed again without
    the upgrade: the parser treats what follows the headers as data of the other protocol, and uvicorn treats it as the
    next request.

    Args:
        parser: The parser, which has parsed the headers.
        url: URL as in the request line.
        headers: Names in lower case, with their values.
    """
    lines = [b"%b %b HTTP/%b" % (parser.get_method(), url, parser.get_http_version().encode())]
    lines += [b"%b: %b" % header for header in headers if header[0] not in _CONNECTION_HEADERS]
    options = b",".join(value for name, value in headers if name == b"connection").lower().split(b",")
    if b"close" in map(bytes.strip, options):
        lines.append(b"connection: close")
    return b"\r\n".join((*lines, b"", b""))
