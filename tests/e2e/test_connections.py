"""Clients that break HTTP, dawdle or never stop: each is told why where it can be, and none keeps a connection."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection
from typing import Any

import pytest

from tests.harness.server import Server, running_server
from tests.harness.waiting import until

_PATIENCE_S = 1.0
_HEAD_BYTES = 8192
_MOST = 12


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("guarded")
    limits = {"client_timeout_s": _PATIENCE_S, "max_header_bytes": _HEAD_BYTES, "max_connections": _MOST}
    with running_server(folder, **limits, min_upload_bytes_per_s=1000) as started:
        yield started


@pytest.fixture(autouse=True)
def _no_connection_is_kept(guarded: Server) -> Iterator[None]:
    yield
    until(lambda: not [c for c in guarded.process.net_connections() if c.status == "ESTABLISHED"])


def connect(server: Server) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def rest(connection: socket.socket) -> bytes:
    """Everything until the server closes."""
    found = b""
    try:
        while received := connection.recv(65536):
            found += received
    except ConnectionResetError:
        pass
    return found


def one_answer(connection: socket.socket) -> bytes:
    """Head and body of the next one, however they come."""
    found = b""
    while b"\r\n\r\n" not in found:
        found += connection.recv(65536)
    head, _, body = found.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def exchange(server: Server, *pieces: bytes, pause_s: float = 0.0) -> bytes:
    with closing(connect(server)) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause_s)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return rest(connection)


def sent_until_closed(connection: socket.socket, words: bytes, *, seconds: float) -> float:
    """Send the same words again and again; give after how many seconds the server closed, at most ``seconds``."""
    began = time.monotonic()
    with suppress(BrokenPipeError, ConnectionResetError):
        while time.monotonic() - began < seconds:
            connection.sendall(words)
            time.sleep(0.001)
    return time.monotonic() - began


def problem(answer: bytes, status: int, code: str) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer[:500]
    assert b"content-type: application/problem+json" in head
    assert b"connection: close" in head
    found: dict[str, Any] = json.loads(body)
    assert found["code"] == code
    assert f"x-request-id: {found['request_id']}".encode() in head
    return found


@pytest.mark.parametrize(
    "words",
    [
        b"This is no HTTP.\r\n\r\n",
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
def test_what_is_no_http_is_a_problem_too(guarded: Server, words: bytes) -> None:
    problem(exchange(guarded, words), 400, "malformed_request")


@pytest.mark.parametrize(
    "pieces",
    [
        [b"GET /" + b"x" * 3 * _HEAD_BYTES + b" HTTP/1.1\r\nhost: x\r\n\r\n"],
        [b"GET / HTTP/1.1\r\nhost: x\r\nx-long: ", *[b"y" * 1000] * 20],
        [b"GET / HTTP/1.1\r\nhost: x\r\n", *[b"x-many: there\r\n"] * 2000],
        [b"GET / HTTP/1.1\r\nhost: x\r\n" + b"x-many: there\r\n" * 2000 + b"\r\n"],
        [b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1;", *[b"e" * 1000] * 20],
    ],
    ids=["address", "header", "headers", "headers at once", "chunk extension"],
)
def test_heads_have_an_end(guarded: Server, pieces: list[bytes]) -> None:
    answer = exchange(guarded, *pieces)
    # Of the last, the answer to its address has gone out before the extension grew: the connection just ends.
    if not answer.startswith(b"HTTP/1.1 404"):
        problem(answer, 431, "headers_too_large")


def test_trailers_have_an_end(guarded: Server) -> None:
    head = b"POST /v1/predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"
    with closing(connect(guarded)) as connection:
        connection.sendall(head)
        assert sent_until_closed(connection, b"x-trailer: " + b"t" * 100 + b"\r\n", seconds=20) < 20


def test_a_head_that_fits_is_heard(guarded: Server) -> None:
    words = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-long: " + b"y" * 7000 + b"\r\n\r\n"
    assert exchange(guarded, words).startswith(b"HTTP/1.1 200")


def test_a_head_must_come_in_time(guarded: Server) -> None:
    began = time.monotonic()
    problem(exchange(guarded), 408, "request_too_slow")
    problem(exchange(guarded, b"GET /healthz HT"), 408, "request_too_slow")
    problem(exchange(guarded, b"GET /", *[b"x"] * 100, pause_s=0.05), 408, "request_too_slow")
    assert time.monotonic() - began > 3 * _PATIENCE_S


def test_a_second_head_on_a_connection_must_come_in_time(guarded: Server) -> None:
    answers = exchange(guarded, b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", b"GET /heal", pause_s=0.2)
    assert answers.startswith(b"HTTP/1.1 200")
    problem(answers[answers.index(b"HTTP/1.1 408") :], 408, "request_too_slow")


def test_an_upload_byte_by_byte_is_refused(guarded: Server) -> None:
    head = b"POST /v1/predict HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n"
    answer = exchange(guarded, head, *[b"R"] * 40, pause_s=0.05)
    assert answer.startswith(b"HTTP/1.1 408"), answer
    assert b'"code":"request_too_slow"' in answer


def test_a_body_that_nobody_wants_does_not_hold_a_connection(guarded: Server) -> None:
    """Answered before it was sent; what is still coming is read for a while, and then no more."""
    with closing(connect(guarded)) as connection:
        connection.sendall(b"POST /nowhere HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n")
        assert _PATIENCE_S / 2 < sent_until_closed(connection, b"x", seconds=15) < 15


def test_an_answer_that_nobody_takes_does_not_hold_a_connection(guarded: Server) -> None:
    ask = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n"
    with closing(connect(guarded)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.settimeout(1)
        try:
            for _ in range(400):
                connection.sendall(ask)
        except (TimeoutError, BrokenPipeError, ConnectionResetError):
            pass
        until(lambda: not [c for c in guarded.process.net_connections() if c.status == "ESTABLISHED"])


def test_who_still_sends_hears_why_it_was_refused(guarded: Server) -> None:
    problem(exchange(guarded, b"This is no HTTP.\r\n\r\n", b"x" * (8 << 20)), 400, "malformed_request")


def test_more_connections_than_allowed_are_told(guarded: Server) -> None:
    with ExitStack() as stack:
        for _ in range(_MOST):
            stack.enter_context(closing(connect(guarded)))
        answer = exchange(guarded, b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n")
        problem(answer, 429, "overloaded")
        assert b"retry-after: 1" in answer.lower()


HEALTH = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"


def test_a_crowd_does_not_make_the_service_look_dead(guarded: Server) -> None:
    with ExitStack() as stack:
        for _ in range(_MOST):
            stack.enter_context(closing(connect(guarded)))
        with closing(connect(guarded)) as probe:
            probe.sendall(HEALTH)
            assert probe.recv(65536).startswith(b"HTTP/1.1 200")
        # Who only waits takes no more than some of the places for probes.
        for _ in range(16):
            stack.enter_context(closing(connect(guarded)))
        problem(exchange(guarded, HEALTH), 429, "overloaded")


@pytest.mark.parametrize("behind", [HEALTH, HEALTH * 20_000, b"This is no HTTP.\r\n\r\n"], ids=["one", "many", "none"])
def test_what_comes_before_an_answer_is_not_heard_and_costs_nothing(guarded: Server, behind: bytes) -> None:
    """A prediction's answer is not lost by what its client sends behind it, nor are thousands of requests kept."""
    head = b"POST /v1/predict?windows=none HTTP/1.1\r\nhost: x\r\ncontent-length: 4000\r\n\r\n"
    before = guarded.process.memory_info().rss
    answers = exchange(guarded, head + b"x" * 4000 + behind)
    assert answers.startswith(b"HTTP/1.1 415")
    assert b"connection: close" in answers
    assert answers.count(b"HTTP/1.1 ") == 1
    assert guarded.process.memory_info().rss - before < 20 << 20


def test_requests_one_after_the_other_share_a_connection(guarded: Server) -> None:
    with closing(HTTPConnection(guarded.url.removeprefix("http://"), timeout=20)) as client:
        client.connect()
        connection = client.sock
        for _ in range(50):
            client.request("GET", "/healthz")
            assert client.getresponse().read() == b'{"status":"ok"}'
            assert client.sock is connection


@pytest.mark.parametrize(
    "pieces",
    [
        [HEALTH, b"\r\n"],
        [HEALTH, *[b"\r\n"] * 50],
        [b"POST /nothing HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n", b"hello"],
        [b"POST /nothing HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n", b"0\r\n\r\n"],
    ],
    ids=["empty line", "empty lines", "body", "chunks"],
)
def test_nothing_but_a_request_prolongs_the_stay_on_a_connection(guarded: Server, pieces: list[bytes]) -> None:
    with closing(connect(guarded)) as connection:
        began = time.monotonic()
        with suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(_PATIENCE_S / 5)
        answers = rest(connection)
    assert answers.count(b"HTTP/1.1 ") == 2
    problem(answers[answers.index(b"HTTP/1.1 408") :], 408, "request_too_slow")
    assert time.monotonic() - began < 15 * _PATIENCE_S


_WISH = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAoAAA\r\n"


@pytest.mark.parametrize("pause_s", [0.0, 0.2])
@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (b"content-length: %d" % len(HEALTH), HEALTH),
        (b"transfer-encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (len(HEALTH), HEALTH)),
    ],
    ids=["length", "chunked"],
)
def test_who_wishes_for_another_protocol_is_answered_in_this_one(
    guarded: Server, framing: bytes, body: bytes, pause_s: float
) -> None:
    """And the body of such a request, which looks like one, is a body."""
    head = b"POST /v1/predict HTTP/1.1\r\nhost: x\r\n" + _WISH + framing + b"\r\n\r\n"
    closing_head = b"GET /readyz HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\nconnection: close, upgrade\r\n\r\n"
    with closing(connect(guarded)) as connection:
        connection.sendall(head)
        time.sleep(pause_s)
        connection.sendall(body)
        first = one_answer(connection)
        connection.sendall(closing_head)
        second = rest(connection)
    assert first.startswith(b"HTTP/1.1 415"), first
    assert first.count(b"HTTP/1.1 ") == 1
    assert second.startswith(b"HTTP/1.1 200")
    assert second.count(b"HTTP/1.1 ") == 1


def test_the_rest_of_an_answer_that_nobody_takes_does_not_hold_a_connection(guarded: Server) -> None:
    """However little of it there is, and however little the client asked for."""
    with closing(connect(guarded)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(b"GET /openapi.json HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        until(lambda: not [c for c in guarded.process.net_connections() if c.status == "ESTABLISHED"], seconds=20)
