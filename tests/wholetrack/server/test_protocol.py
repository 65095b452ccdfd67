"""Clients that read a large response slowly, or not at all."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from functools import partial
from itertools import chain, repeat
from typing import Any

import pytest
import uvicorn

from tests.harness.waiting import until
from wholetrack.server.limits import ConnectionLimits
from wholetrack.server.protocol import GuardedProtocol
from wholetrack.server.waiting import WaitingConnections

pytestmark = pytest.mark.timing

_TIMEOUT_S = 0.5
_RESPONSE_BYTES = 12 << 20
_CHUNK_BYTES = 128 << 10
_MIN_BYTES_PER_S = 256 << 10
_REQUEST_TIMEOUT_S = 20.0


async def _large_response(scope: Any, receive: Any, send: Any) -> None:
    del scope, receive
    headers = [(b"content-length", b"%d" % _RESPONSE_BYTES)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": bytes(_RESPONSE_BYTES)})


@pytest.fixture
def port() -> Iterator[int]:
    limits = ConnectionLimits(
        max_connections=4,
        max_header_bytes=4096,
        timeout_s=_TIMEOUT_S,
        min_response_bytes_per_s=_MIN_BYTES_PER_S,
        request_timeout_s=_REQUEST_TIMEOUT_S,
    )
    config = uvicorn.Config(
        _large_response,
        port=0,
        http=partial(GuardedProtocol, limits=limits, waiting=WaitingConnections()),  # type: ignore[arg-type] # uvicorn only calls it
        ws="none",
        lifespan="off",
        log_config=None,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    until(lambda: server.started)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


def read_response(port: int, *, pauses_s: Iterable[float]) -> int:
    """Read the response, pausing after each of the first chunks; return the number of bytes received."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as client:
        client.connect()
        # Otherwise the kernel would enlarge its buffer until it holds the whole response.
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2 * _CHUNK_BYTES)
        client.request("GET", "/")
        response, n_bytes = client.getresponse(), 0
        try:
            for pause_s in chain(pauses_s, repeat(0.0)):
                if not (chunk := response.read(_CHUNK_BYTES)):
                    break
                n_bytes += len(chunk)
                time.sleep(pause_s)
        except (ConnectionResetError, http.client.IncompleteRead):
            pass
    return n_bytes


def test_a_client_that_reads_slowly_gets_the_whole_response(port: int) -> None:
    """Progress counts even if only the kernel's buffer shrinks and the server's own does not."""
    assert read_response(port, pauses_s=repeat(_TIMEOUT_S / 10)) == _RESPONSE_BYTES


def test_a_client_that_reads_more_slowly_than_permitted_is_disconnected(port: int) -> None:
    """Although it never stops reading."""
    n_bytes = 0
    with socket.socket() as connection:
        # With a larger buffer, the kernel would read for a client that does not.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(20)
        connection.connect(("127.0.0.1", port))
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        with suppress(ConnectionResetError):
            while chunk := connection.recv(1024):
                n_bytes += len(chunk)
                time.sleep(_TIMEOUT_S / 5)
    assert n_bytes < _RESPONSE_BYTES / 10


def test_a_client_that_stops_reading_is_disconnected(port: int) -> None:
    assert read_response(port, pauses_s=[4 * _TIMEOUT_S]) < _RESPONSE_BYTES
