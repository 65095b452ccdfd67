"""Requests to upgrade a connection to another protocol: recognising WebSockets, and declining everything else."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

import httptools
from websockets.datastructures import Headers
from websockets.http11 import Request

from wholetrack.api.live import LIVE_PATH

# Headers that request an upgrade, or that apply to a single connection only.
_CONNECTION_HEADERS = frozenset({b"connection", b"upgrade", b"http2-settings"})


def websocket_request(
    parser: httptools.HttpRequestParser, url: bytes, headers: Sequence[tuple[bytes, bytes]]
) -> Request | None:
    """Return the handshake of a WebSocket (RFC 6455, 4.2.1) for the path that has one; None for any other request.

    Args:
        parser: The parser, which has parsed the headers.
        url: URL as in the request line.
        headers: Names in lower case, with their values.
    """
    path = url.partition(b"?")[0].rstrip(b"/")
    # A proxy may or may not remove the prefix of the path. The application finds out whether it is right.
    if not (parser.get_method() == b"GET" and parser.get_http_version() == "1.1" and url.isascii()):
        return None
    if not path.endswith(LIVE_PATH.encode()):
        return None
    values = dict(headers)
    if values.get(b"upgrade", b"").strip().lower() != b"websocket":
        return None
    if not _is_key(values.get(b"sec-websocket-key", b"")) or values.get(b"sec-websocket-version", b"").strip() != b"13":
        return None
    decoded = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
    return Request(url.decode(), Headers(decoded))


def _is_key(value: bytes) -> bool:
    try:
        return len(base64.b64decode(value.strip(), validate=True)) == 16
    except binascii.Error:
        return False


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
