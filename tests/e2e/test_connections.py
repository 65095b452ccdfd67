"""Clients that send invalid HTTP, are slow, or never stop: they get an error if possible, and are disconnected."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.harness.server import Server, running_server
from tests.harness.waiting import until

pytestmark = pytest.mark.timing

_TIMEOUT_S = 1.0
_MAX_HEADER_BYTES = 8192
_MAX_CONNECTIONS = 12

HEALTH = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
_UPGRADE = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAoAAA\r\n"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service with small connection limits."""
    folder = tmp_path_factory.mktemp("guarded")
    limits = {
        "client_timeout_s": _TIMEOUT_S,
        "max_header_bytes": _MAX_HEADER_BYTES,
        "max_connections": _MAX_CONNECTIONS,
    }
    with running_server(folder, **limits, min_upload_bytes_per_s=1000) as started:
        yield started


def has_no_connections(server: Server) -> bool:
    return not [c for c in server.process.net_connections() if c.status == "ESTABLISHED"]


@pytest.fixture(autouse=True)
def _every_connection_is_closed(guarded: Server) -> Iterator[None]:
    yield
    until(lambda: has_no_connections(guarded))


def connect(server: Server) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def read_until_closed(connection: socket.socket) -> bytes:
    """Return everything that the server sends until it closes the connection."""
    received = b""
    try:
        while chunk := connection.recv(65536):
            received += chunk
    except ConnectionResetError:
        pass
    return received


def read_response(connection: socket.socket) -> bytes:
    """Return the headers and body of one response."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65536)
    headers, _, body = received.partition(b"\r\n\r\n")
    length = int(headers.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)
    return headers + b"\r\n\r\n" + body


def exchange(server: Server, *chunks: bytes, pause_s: float = 0.0) -> bytes:
    """Send chunks over a new connection, and return everything that comes back."""
    with closing(connect(server)) as connection:
        try:
            for chunk in chunks:
                connection.sendall(chunk)
                time.sleep(pause_s)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return read_until_closed(connection)


def send_until_closed(connection: socket.socket, chunk: bytes, *, max_s: float) -> float:
    """Send a chunk repeatedly; return after how many seconds the server closed the connection, at most ``max_s``."""
    began = time.monotonic()
    with suppress(BrokenPipeError, ConnectionResetError):
        while time.monotonic() - began < max_s:
            connection.sendall(chunk)
            time.sleep(0.001)
    return time.monotonic() - began


def assert_refused(response: bytes, status: int, code: str) -> None:
    """Check that a response is a problem with this status and code, and announces that the connection closes."""
    headers, _, body = response.partition(b"\r\n\r\n")
    assert headers.startswith(b"HTTP/1.1 %d " % status), response[:500]
    assert b"content-type: application/problem+json" in headers
    assert b"connection: close" in headers
    problem: dict[str, Any] = json.loads(body)
    assert problem["code"] == code
    assert f"x-request-id: {problem['request_id']}".encode() in headers


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"This is not HTTP.\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n",
        b"CONNECT x:80 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST /v1/predict HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"POST /v1/predict HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_invalid_http_is_answered_with_a_problem(guarded: Server, request_bytes: bytes) -> None:
    assert_refused(exchange(guarded, request_bytes), 400, "malformed_request")


@pytest.mark.parametrize(
    "chunks",
    [
        [b"GET /" + b"x" * 3 * _MAX_HEADER_BYTES + b" HTTP/1.1\r\nhost: x\r\n\r\n"],
        [b"GET / HTTP/1.1\r\nhost: x\r\nx-long: ", *[b"y" * 1000] * 20],
        [b"GET / HTTP/1.1\r\nhost: x\r\n", *[b"x-many: there\r\n"] * 2000],
        [b"GET / HTTP/1.1\r\nhost: x\r\n" + b"x-many: there\r\n" * 2000 + b"\r\n"],
        [b"POST /nowhere HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1;", *[b"e" * 1000] * 20],
        [b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a:\r\n" * 100 + b"\r\n"],
    ],
    ids=["URL", "header", "headers", "headers at once", "chunk extension", "number of headers"],
)
def test_the_size_of_headers_is_limited(guarded: Server, chunks: list[bytes]) -> None:
    response = exchange(guarded, *chunks)
    # The 404 for the last of these may be sent before the extension exceeds the limit; the connection then just closes.
    if not response.startswith(b"HTTP/1.1 404"):
        assert_refused(response, 431, "headers_too_large")


def test_the_size_of_trailers_is_limited(guarded: Server) -> None:
    headers = b"POST /v1/predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    with closing(connect(guarded)) as connection:
        connection.sendall(headers + b"5\r\nhello\r\n0\r\n")
        assert send_until_closed(connection, b"x-trailer: " + b"t" * 100 + b"\r\n", max_s=20) < 20


def test_the_number_of_query_parameters_is_limited(guarded: Server) -> None:
    parameters = b"&".join(b"%x" % number for number in range(1500))
    for method, path in ((b"GET", b"/healthz"), (b"POST", b"/v1/predict"), (b"GET", b"/nowhere")):
        response = exchange(guarded, b"%b %b?%b HTTP/1.1\r\nhost: x\r\n\r\n" % (method, path, parameters))
        assert_refused(response, 422, "invalid_parameter")


@pytest.mark.parametrize("coding", [b"gzip", b"gzip, chunked", b"deflate", b"br, gzip, chunked"])
def test_other_transfer_codings_are_not_implemented(guarded: Server, coding: bytes) -> None:
    headers = b"POST /v1/predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: " + coding + b"\r\n\r\n"
    assert_refused(exchange(guarded, headers, b"5\r\nhello\r\n0\r\n\r\n"), 501, "unsupported_transfer_coding")


@pytest.mark.parametrize("path", [b"/v1/predict", b"/v1/models", b"/healthz", b"/nowhere"])
def test_a_body_of_tiny_chunks_is_refused(guarded: Server, path: bytes) -> None:
    """Whatever the path; a response that was sent before the body is not followed by another one."""
    headers = b"POST " + path + b" HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    at_once = exchange(guarded, headers + b"1\r\nA\r\n" * 10_000)
    assert_refused(at_once, 400, "malformed_request")
    assert b"too many small chunks" in at_once
    in_parts = exchange(guarded, headers, *[b"1\r\nA\r\n" * 100] * 5, pause_s=0.02)
    assert in_parts.count(b"HTTP/1.1 ") == 1


def test_a_body_of_small_chunks_is_predicted(guarded: Server) -> None:
    """As sent by a program that records audio and sends it in pieces."""
    headers = b"POST /v1/predict HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    chunk = b"50\r\n" + b"\0" * 80 + b"\r\n"
    response = exchange(guarded, headers + chunk * 5000 + b"0\r\n\r\n")
    assert response.startswith(b"HTTP/1.1 415"), response


def test_headers_below_the_limit_are_accepted(guarded: Server) -> None:
    request = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-long: " + b"y" * 7000 + b"\r\n\r\n"
    assert exchange(guarded, request).startswith(b"HTTP/1.1 200")


def test_headers_must_arrive_in_time(guarded: Server) -> None:
    began = time.monotonic()
    assert_refused(exchange(guarded), 408, "request_too_slow")
    assert_refused(exchange(guarded, b"GET /healthz HT"), 408, "request_too_slow")
    assert_refused(exchange(guarded, b"GET /", *[b"x"] * 100, pause_s=0.05), 408, "request_too_slow")
    assert time.monotonic() - began > 3 * _TIMEOUT_S


def test_the_headers_of_a_second_request_must_arrive_in_time(guarded: Server) -> None:
    responses = exchange(guarded, HEALTH, b"GET /heal", pause_s=0.2)
    assert responses.startswith(b"HTTP/1.1 200")
    assert_refused(responses[responses.index(b"HTTP/1.1 408") :], 408, "request_too_slow")


def test_a_connection_may_be_idle_for_longer_than_headers_may_take(guarded: Server) -> None:
    with closing(connect(guarded)) as connection:
        connection.sendall(HEALTH)
        assert read_response(connection).startswith(b"HTTP/1.1 200")
        connection.settimeout(2 * _TIMEOUT_S)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(20)
        connection.sendall(HEALTH)
        assert read_response(connection).startswith(b"HTTP/1.1 200")


def test_an_idle_connection_is_closed_without_another_response(tmp_path: Path) -> None:
    with running_server(tmp_path, keep_alive_s=1) as server, closing(connect(server)) as connection:
        connection.sendall(HEALTH)
        assert read_until_closed(connection).count(b"HTTP/1.1 ") == 1


def test_an_upload_byte_by_byte_is_refused(guarded: Server) -> None:
    headers = b"POST /v1/predict HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n"
    response = exchange(guarded, headers, *[b"R"] * 40, pause_s=0.05)
    assert response.startswith(b"HTTP/1.1 408"), response
    assert b'"code":"request_too_slow"' in response


def test_the_rest_of_a_body_after_an_early_response_is_discarded_for_a_limited_time(guarded: Server) -> None:
    with closing(connect(guarded)) as connection:
        connection.sendall(b"POST /nowhere HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n")
        assert _TIMEOUT_S / 2 < send_until_closed(connection, b"x", max_s=15) < 15


def test_a_client_that_reads_no_response_does_not_keep_its_connection(guarded: Server) -> None:
    with closing(connect(guarded)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.settimeout(1)
        try:
            for _ in range(400):
                connection.sendall(b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n")
        except (TimeoutError, BrokenPipeError, ConnectionResetError):
            pass
        until(lambda: has_no_connections(guarded))


def test_a_client_that_is_still_sending_can_read_why_it_was_refused(guarded: Server) -> None:
    response = exchange(guarded, b"This is not HTTP.\r\n\r\n", b"x" * (8 << 20))
    assert_refused(response, 400, "malformed_request")


@pytest.mark.parametrize("version", [b"HTTP/1.0\r\n", b"HTTP/1.1\r\nconnection: close\r\n", b"HTTP/1.1\r\n"])
@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"POST /nowhere", 404),
        (b"GET /v1/predict", 405),
        (b"POST /v1/predict?top_k=0", 422),
        (b"POST /v1/predict", 413),
    ],
)
def test_a_client_that_sends_everything_first_can_read_an_early_response(
    guarded: Server, target: bytes, status: int, version: bytes
) -> None:
    """Although it has announced that the connection closes after the response."""
    headers = target + b" " + version + b"host: x\r\ncontent-length: 1000000000\r\n\r\n"
    with closing(connect(guarded)) as connection:
        connection.sendall(headers)
        # More than the buffers of both kernels hold, so that the service has to read it.
        for _ in range(16):
            connection.sendall(bytes(1 << 20))
        assert connection.recv(65536).startswith(b"HTTP/1.1 %d " % status)


def occupy(server: Server, stack: ExitStack, n_connections: int) -> None:
    """Open connections, each with an upload in progress, until the end of the stack."""
    for _ in range(n_connections):
        connection = stack.enter_context(closing(connect(server)))
        connection.sendall(b"POST /v1/predict HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n" + b"R" * 50_000)


def test_a_request_is_refused_if_too_many_are_in_progress(guarded: Server) -> None:
    with ExitStack() as stack:
        occupy(guarded, stack, _MAX_CONNECTIONS)
        until(lambda: len(guarded.leftovers()["files"]) == _MAX_CONNECTIONS)
        response = exchange(guarded, b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n")
        assert_refused(response, 429, "overloaded")
        assert b"retry-after: 1" in response.lower()
        # Probes are still answered.
        with closing(connect(guarded)) as probe:
            probe.sendall(HEALTH)
            assert read_response(probe).startswith(b"HTTP/1.1 200")


def test_connections_without_a_request_keep_no_request_out(guarded: Server) -> None:
    """Those that have waited longest are closed, whether they never had a request or were kept open after one."""
    with ExitStack() as stack:
        first = stack.enter_context(closing(connect(guarded)))
        kept = stack.enter_context(closing(connect(guarded)))
        kept.sendall(HEALTH)
        assert read_response(kept).startswith(b"HTTP/1.1 200")
        for _ in range(3 * _MAX_CONNECTIONS):
            stack.enter_context(closing(connect(guarded)))
            with closing(connect(guarded)) as client:
                client.sendall(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n")
                assert read_response(client).startswith(b"HTTP/1.1 200")
        assert read_until_closed(first) == read_until_closed(kept) == b""


@pytest.mark.parametrize(
    "next_request", [HEALTH, HEALTH * 20_000, b"This is not HTTP.\r\n\r\n"], ids=["one", "many", "invalid"]
)
def test_requests_sent_before_the_response_are_ignored_and_not_buffered(guarded: Server, next_request: bytes) -> None:
    """A prediction still gets its response, and thousands of pipelined requests take no memory."""
    headers = b"POST /v1/predict?windows=none HTTP/1.1\r\nhost: x\r\ncontent-length: 4000\r\n\r\n"
    before = guarded.process.memory_info().rss
    responses = exchange(guarded, headers + b"x" * 4000 + next_request)
    assert responses.startswith(b"HTTP/1.1 415")
    assert b"connection: close" in responses
    assert responses.count(b"HTTP/1.1 ") == 1
    assert guarded.process.memory_info().rss - before < 20 << 20


def test_successive_requests_share_a_connection(guarded: Server) -> None:
    with closing(HTTPConnection(guarded.url.removeprefix("http://"), timeout=20)) as client:
        client.connect()
        connection = client.sock
        for _ in range(50):
            client.request("GET", "/healthz")
            assert client.getresponse().read() == b'{"status":"ok"}'
            assert client.sock is connection


@pytest.mark.parametrize(
    "chunks",
    [
        [HEALTH, b"\r\n"],
        [HEALTH, *[b"\r\n"] * 50],
        [b"POST /nothing HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n", b"hello"],
        [b"POST /nothing HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n", b"0\r\n\r\n"],
    ],
    ids=["empty line", "empty lines", "body", "chunks"],
)
def test_only_a_complete_request_keeps_a_connection_open(guarded: Server, chunks: list[bytes]) -> None:
    with closing(connect(guarded)) as connection:
        began = time.monotonic()
        with suppress(BrokenPipeError, ConnectionResetError):
            for chunk in chunks:
                connection.sendall(chunk)
                time.sleep(_TIMEOUT_S / 5)
        responses = read_until_closed(connection)
    assert responses.count(b"HTTP/1.1 ") == 2
    assert_refused(responses[responses.index(b"HTTP/1.1 408") :], 408, "request_too_slow")
    assert time.monotonic() - began < 15 * _TIMEOUT_S


@pytest.mark.parametrize("pause_s", [0.0, 0.2])
@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (b"content-length: %d" % len(HEALTH), HEALTH),
        (b"transfer-encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (len(HEALTH), HEALTH)),
    ],
    ids=["length", "chunked"],
)
def test_a_request_for_an_upgrade_is_processed_as_http_1(
    guarded: Server, framing: bytes, body: bytes, pause_s: float
) -> None:
    """Its body, which looks like another request here, is treated as a body."""
    upgrade = b"POST /v1/predict HTTP/1.1\r\nhost: x\r\n" + _UPGRADE + framing + b"\r\n\r\n"
    last = b"GET /readyz HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\nconnection: close, upgrade\r\n\r\n"
    with closing(connect(guarded)) as connection:
        connection.sendall(upgrade)
        time.sleep(pause_s)
        connection.sendall(body)
        first = read_response(connection)
        connection.sendall(last)
        second = read_until_closed(connection)
    assert first.startswith(b"HTTP/1.1 415"), first
    assert first.count(b"HTTP/1.1 ") == 1
    assert second.startswith(b"HTTP/1.1 200")
    assert second.count(b"HTTP/1.1 ") == 1


def test_a_client_that_does_not_read_a_small_response_does_not_keep_its_connection(guarded: Server) -> None:
    """Even if the client has announced that this is its last request, and little of the response is left to send."""
    with closing(connect(guarded)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(b"GET /openapi.json HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        until(lambda: has_no_connections(guarded), seconds=20)
