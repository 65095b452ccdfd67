"""What a client may send over a WebSocket."""

from __future__ import annotations

import os

import pytest
from websockets.datastructures import Headers
from websockets.frames import Frame, Opcode
from websockets.http11 import Request

from wholetrack.server.websocket import MAX_MESSAGE_BYTES, LimitedServerProtocol


def opened() -> LimitedServerProtocol:
    connection = LimitedServerProtocol()
    fields = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
    }
    response = connection.accept(Request("/", Headers(fields)))
    assert response.status_code == 101
    connection.send_response(response)
    connection.data_to_send()
    return connection


def send(connection: LimitedServerProtocol, opcode: Opcode, data: bytes, *, count: int = 1) -> bool:
    """Send frames; return whether the connection is still in order."""
    frame = Frame(opcode, data).serialize(mask=True)
    connection.receive_data(frame * count)
    connection.events_received()
    return connection.parser_exc is None


@pytest.mark.parametrize("opcode", [Opcode.BINARY, Opcode.PING, Opcode.PONG])
def test_a_flood_of_small_frames_ends_the_connection(opcode: Opcode) -> None:
    connection = opened()
    assert send(connection, opcode, b"", count=256)
    assert not send(connection, opcode, b"")
    assert connection.close_sent
    assert (connection.close_sent.code, "256 bytes" in connection.close_sent.reason) == (1002, True)
    # Nothing more is parsed.
    connection.data_to_send()
    connection.receive_data(os.urandom(1 << 16))
    assert not connection.events_received()


def test_pings_with_data_do_not_make_up_for_others() -> None:
    assert not send(opened(), Opcode.PING, b"x" * 125, count=400)


def test_audio_and_a_ping_now_and_then_may_go_on_forever() -> None:
    connection = opened()
    for _ in range(50):
        assert send(connection, Opcode.BINARY, b"x" * 256, count=100)
        assert send(connection, Opcode.BINARY, b"x" * 4096)
        assert send(connection, Opcode.PING, b"ping")


def test_large_frames_do_not_make_up_for_any_number_of_small_ones() -> None:
    connection = opened()
    assert send(connection, Opcode.BINARY, b"x" * MAX_MESSAGE_BYTES)
    assert not send(connection, Opcode.BINARY, b"", count=300)


def test_a_message_has_a_maximum_size_even_in_fragments() -> None:
    connection = opened()
    part = Frame(Opcode.BINARY, b"x" * (MAX_MESSAGE_BYTES // 2), fin=False).serialize(mask=True)
    rest = Frame(Opcode.CONT, b"x" * (MAX_MESSAGE_BYTES // 2 + 1), fin=False).serialize(mask=True)
    connection.receive_data(part)
    assert connection.parser_exc is None
    connection.receive_data(rest)
    assert connection.close_sent
    assert connection.close_sent.code == 1009
