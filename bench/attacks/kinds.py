"""What the attacking clients send."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from bench.attacks.connections import Target, hold_connections
from bench.attacks.live import hold_silent_websockets, ignore_events, send_tiny_messages
from bench.attacks.tally import Tally

_CHUNKS = b"1\r\nA\r\n" * 10_000
_SLICE_BYTES = 1 << 18
_SLOW_READ_BYTES = 512
_SLOW_READ_PAUSE_S = 0.5


Client = Callable[[Target, float, Tally], None]
"""One attacking client: it attacks the target until the given time of ``time.monotonic()``, and counts what it does."""


@dataclass(frozen=True, slots=True)
class Attack:
    """A number of clients that do the same.

    Attributes:
        client: One of them.
        n_clients: Their number.
    """

    client: Client
    n_clients: int


def send_tiny_chunks(target: Target, end: float, tally: Tally) -> None:
    """Send a body in chunks of one byte, as fast as the service reads it."""
    with target.connect() as connection:
        tally.connections += 1
        connection.sendall(_request(b"POST /v1/predict", b"Transfer-Encoding: chunked") + _CHUNKS)
        with suppress(OSError):
            while time.monotonic() < end:
                tally.sent_bytes += connection.send(_CHUNKS)
        tally.count_response(connection.recv(1 << 16))


def send_form_lines(target: Target, end: float, tally: Tally) -> None:
    """Send a form whose file consists of lines that begin like the boundary."""
    body = b"--x\r\nContent-Disposition: form-data; name=file\r\n\r\n" + b"\r\n--x-A" * 1_000_000
    headers = b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: %d" % len(body)
    with target.connect() as connection:
        tally.connections += 1
        connection.sendall(_request(b"POST /v1/predict", headers) + body[:_SLICE_BYTES])
        view = memoryview(body)[_SLICE_BYTES:]
        with suppress(OSError):
            while view and time.monotonic() < end:
                n_sent = connection.send(view[:_SLICE_BYTES])
                tally.sent_bytes += n_sent
                view = view[n_sent:]
        tally.count_response(connection.recv(1 << 16))


def send_costly_headers(target: Target, end: float, tally: Tally) -> None:
    """Send requests whose headers take long to process, one kind after the other."""
    parameters = b"&".join(b"%x" % number for number in range(6500))
    requests = itertools.cycle(
        (
            _request(b"POST /v1/predict", b"Content-Length: 0\r\nContent-Type: multipart/form-data" + b";" * 32_000),
            _request(b"POST /v1/predict", b"Content-Length: 0\r\nContent-Type: multipart/form-data" + b";" * 8000),
            _request(b"POST /v1/predict?" + parameters, b"Content-Length: 0"),
            _request(b"POST /v1/predict?" + b"&".join([b"a"] * 4000), b"Content-Length: 0"),
            _request(b"GET /healthz", b"\r\n".join([b"a:"] * 8000)),
            _request(b"GET /healthz", b"X-Forwarded-For: " + b",".join([b"127.0.0.1"] * 800)),
            _request(b"GET /" + b"%41" * 2700, b"a: b"),
        )
    )
    while time.monotonic() < end:
        with target.connect() as connection, suppress(OSError):
            tally.connections += 1
            while time.monotonic() < end:
                request = next(requests)
                connection.sendall(request)
                tally.sent_bytes += len(request)
                response = connection.recv(1 << 16)
                if not response:
                    break
                tally.count_response(response)


def hold_silent_connections(target: Target, end: float, tally: Tally) -> None:
    """Open connections that send nothing, and open new ones when they are closed."""
    hold_connections(target, end, tally)


def read_slowly(target: Target, end: float, tally: Tally) -> None:
    """Request a large response, and read a few bytes of it from time to time."""
    body = target.recording.read_bytes()
    with target.connect(receive_buffer_bytes=2048) as connection:
        tally.connections += 1
        connection.settimeout(60)
        connection.sendall(_request(b"POST /v1/predict?hop_s=0.54", b"Content-Length: %d" % len(body)) + body)
        tally.sent_bytes += len(body)
        tally.count_response(connection.recv(_SLOW_READ_BYTES))
        while time.monotonic() < end and connection.recv(_SLOW_READ_BYTES):
            time.sleep(_SLOW_READ_PAUSE_S)


ATTACKS: Mapping[str, Attack] = {
    "tiny chunks": Attack(send_tiny_chunks, 16),
    "form lines": Attack(send_form_lines, 16),
    "costly headers": Attack(send_costly_headers, 16),
    "silent connections": Attack(hold_silent_connections, 1),
    "slow readers": Attack(read_slowly, 16),
    "tiny messages": Attack(send_tiny_messages, 16),
    "silent WebSockets": Attack(hold_silent_websockets, 1),
    "ignored events": Attack(ignore_events, 16),
}
"""All attacks, by name."""


def _request(method_and_target: bytes, headers: bytes) -> bytes:
    return method_and_target + b" HTTP/1.1\r\nHost: localhost\r\n" + headers + b"\r\n\r\n"
