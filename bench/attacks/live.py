"""What attacking clients send to ``/v1/live``."""

from __future__ import annotations

import json
import os
import struct
import time
from contextlib import suppress

from websockets.protocol import Protocol, Side, State

from bench.attacks.connections import Target, hold_connections
from bench.attacks.tally import Tally

_HANDSHAKE = (
    b"GET /v1/live HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)
_TEXT, _BINARY = 0x81, 0x82
_MASKED, _LENGTH_16 = 0x80, 126
# Masking with zero leaves the data as it is (RFC 6455, 5.3).
_MASK = bytes(4)
_RATE_HZ = 22_050
_SMALLEST_HOP_S = 0.1
_SAMPLE_BYTES = 2
_READ_BYTES = 1 << 16


def send_tiny_messages(target: Target, end: float, tally: Tally) -> None:
    """Send audio in messages of one sample, as fast as the service reads them."""
    messages = _frame(_BINARY, bytes(_SAMPLE_BYTES)) * 10_000
    with target.connect() as connection:
        tally.connections += 1
        connection.sendall(_HANDSHAKE + _start() + messages)
        with suppress(OSError):
            while time.monotonic() < end:
                tally.sent_bytes += connection.send(messages)
        received = b""
        with suppress(OSError):
            while part := connection.recv(_READ_BYTES):
                received += part
        _count(received, tally)


def hold_silent_websockets(target: Target, end: float, tally: Tally) -> None:
    """Open WebSockets and send nothing, and open new ones when they are closed."""
    hold_connections(target, end, tally, greeting=_HANDSHAKE, keep=b"HTTP/1.1 101 ")


def ignore_events(target: Target, end: float, tally: Tally) -> None:
    """Send audio as fast as the service takes it, with the smallest hop, and read none of the events."""
    audio = _frame(_BINARY, os.urandom(_SAMPLE_BYTES * _RATE_HZ // 2))
    with target.connect(receive_buffer_bytes=2048) as connection:
        tally.connections += 1
        connection.sendall(_HANDSHAKE)
        tally.count_response(connection.recv(len(b"HTTP/1.1 101 ")))
        connection.sendall(_start(hop_s=_SMALLEST_HOP_S))
        # The service stops reading while it processes what it has.
        connection.settimeout(60)
        while time.monotonic() < end:
            tally.sent_bytes += connection.send(audio)


def _start(**options: float) -> bytes:
    fields = {"encoding": "int16", "sample_rate_hz": _RATE_HZ, **options}
    return _frame(_TEXT, json.dumps(fields).encode())


def _frame(first_byte: int, data: bytes) -> bytes:
    if len(data) < _LENGTH_16:
        length = bytes([_MASKED | len(data)])
    else:
        length = bytes([_MASKED | _LENGTH_16]) + struct.pack(">H", len(data))
    return bytes([first_byte]) + length + _MASK + data


def _count(received: bytes, tally: Tally) -> None:
    """Count the response to the handshake, and the code with which the WebSocket was closed."""
    headers, _, frames = received.partition(b"\r\n\r\n")
    tally.count_response(headers)
    protocol = Protocol(Side.CLIENT, state=State.OPEN, max_size=None)
    protocol.receive_data(frames)
    if protocol.close_rcvd:
        tally.responses[protocol.close_rcvd.code] += 1
