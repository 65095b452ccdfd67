"""A client of ``/v1/live`` for the end-to-end tests."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

MONO = {"encoding": "float32", "sample_rate_hz": 22050}
END = '{"end": true}'

Events = list[tuple[str, dict[str, Any]]]


class Addressed(Protocol):
    """A service, or a proxy in front of it."""

    @property
    def url(self) -> str:
        """Its address, without a trailing slash."""


def address(server: Addressed) -> str:
    """Return the URL of the WebSocket."""
    return server.url.replace("http", "ws", 1) + "/v1/live"


@contextmanager
def live(server: Addressed, start: dict[str, Any] | str | None = None, **options: Any) -> Iterator[ClientConnection]:
    """Connect, and send a first message."""
    with connect(address(server), max_size=None, proxy=None, **options) as connection:
        if start is not None:
            connection.send(start if isinstance(start, str) else json.dumps(start))
        yield connection


def receive(connection: ClientConnection) -> tuple[str, dict[str, Any]]:
    """Receive one event."""
    event = json.loads(connection.recv(timeout=60))
    return event["event"], event["data"]


def receive_all(connection: ClientConnection) -> tuple[Events, int | None]:
    """Receive all events until the connection is closed; return them and the close code."""
    events: Events = []
    try:
        while True:
            events.append(receive(connection))
    except ConnectionClosed:
        return events, connection.close_code


def predict_live(
    server: Addressed, data: bytes, start: dict[str, Any] | None = None, *, message_bytes: int = 1 << 16, **options: Any
) -> tuple[Events, int | None]:
    """Send audio as fast as possible; return all events and the close code."""

    def send() -> None:
        try:
            for begin in range(0, len(data), message_bytes):
                connection.send(data[begin : begin + message_bytes])
            connection.send(END)
        except ConnectionClosed:
            pass

    with live(server, start or MONO, **options) as connection:
        sender = threading.Thread(target=send)
        sender.start()
        found = receive_all(connection)
        sender.join()
        return found


def problem(events: Events) -> dict[str, Any]:
    """Return the problem in the last event."""
    name, data = events[-1]
    assert name == "error", events[-1]
    assert len(data["request_id"]) == 32
    assert data["type"] == f"urn:wholetrack:problem:{data['code']}"
    return data


def joined(events: Events, field: str) -> list[Any]:
    """Return a field of the windows of all events."""
    return [value for name, data in events if name == "windows" for value in data[field]]


def send_until_closed(connection: ClientConnection, message: bytes, *, pause_s: float = 0.0) -> None:
    """Send a message again and again until the service closes the connection."""
    with suppress(ConnectionClosed):
        while True:
            connection.send(message)
            time.sleep(pause_s)
