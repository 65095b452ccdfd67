"""When a connection is aborted because its client reads a response too slowly, by a clock that the test sets."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from wholetrack.server.limits import ConnectionLimits
from wholetrack.server.write_monitor import WriteMonitor

_GRACE_S = 10.0
_BYTES_PER_S = 1000
_REQUEST_TIMEOUT_S = 100.0


class _Handle:
    def __init__(self, loop: _Clock, when: float, callback: Any) -> None:
        self.loop, self.when, self.callback = loop, when, callback

    def cancel(self) -> None:
        if self.loop.due is self:
            self.loop.due = None


class _Clock:
    """The clock and the only timer of an event loop."""

    def __init__(self) -> None:
        self.now = 0.0
        self.due: _Handle | None = None

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Any) -> _Handle:
        self.due = _Handle(self, when, callback)
        return self.due


class _Connection:
    """A connection whose client reads as much as the test says."""

    def __init__(self, unsent_bytes: int) -> None:
        self.unsent_bytes = unsent_bytes
        self.aborted = False
        self._ends = socket.socketpair()

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def get_extra_info(self, name: str) -> socket.socket:
        assert name == "socket"
        return self._ends[0]

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None:
        for end in self._ends:
            end.close()


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


@pytest.fixture
def connection() -> Iterator[_Connection]:
    connection = _Connection(10**6)
    yield connection
    connection.close()


@pytest.fixture
def monitor(clock: _Clock, connection: _Connection) -> WriteMonitor:
    limits = ConnectionLimits(
        max_connections=1,
        max_header_bytes=1,
        timeout_s=_GRACE_S,
        min_response_bytes_per_s=_BYTES_PER_S,
        request_timeout_s=_REQUEST_TIMEOUT_S,
    )
    loop: Any = clock
    transport: Any = connection
    return WriteMonitor(loop, transport, limits)


def read_at_rate(clock: _Clock, connection: _Connection, bytes_per_s: float) -> float | None:
    """Let the client read at a constant rate; return when it is disconnected, or None if it reads everything."""
    began, n_bytes = clock.now, connection.unsent_bytes
    while clock.due and not connection.aborted:
        due, clock.due = clock.due, None
        clock.now = due.when
        connection.unsent_bytes = max(0, int(n_bytes - bytes_per_s * (clock.now - began)))
        if connection.unsent_bytes == 0:
            return None
        due.callback()
    assert connection.aborted
    return clock.now


def test_a_client_that_reads_nothing_is_disconnected_after_the_grace_time(
    clock: _Clock, connection: _Connection, monitor: WriteMonitor
) -> None:
    monitor.start(request_began=0.0)
    assert read_at_rate(clock, connection, 0) == _GRACE_S


def test_a_client_that_reads_too_slowly_is_disconnected(
    clock: _Clock, connection: _Connection, monitor: WriteMonitor
) -> None:
    """At half the rate, it is behind once the grace time is used up, after twice that time."""
    monitor.start(request_began=0.0)
    assert read_at_rate(clock, connection, _BYTES_PER_S / 2) == pytest.approx(2 * _GRACE_S, abs=0.1)


def test_a_client_that_reads_fast_enough_is_not_disconnected(
    clock: _Clock, connection: _Connection, monitor: WriteMonitor
) -> None:
    monitor.start(request_began=0.0)
    assert read_at_rate(clock, connection, 11 * _BYTES_PER_S) is None


def test_a_response_must_be_read_within_the_time_limit_of_its_request(
    clock: _Clock, connection: _Connection, monitor: WriteMonitor
) -> None:
    monitor.start(request_began=0.0)
    assert read_at_rate(clock, connection, 1.1 * _BYTES_PER_S) == _REQUEST_TIMEOUT_S


def test_a_response_at_the_end_of_the_time_limit_still_has_the_grace_time(
    clock: _Clock, connection: _Connection, monitor: WriteMonitor
) -> None:
    clock.now = _REQUEST_TIMEOUT_S - 1
    monitor.start(request_began=0.0)
    assert read_at_rate(clock, connection, 2 * _BYTES_PER_S) == _REQUEST_TIMEOUT_S - 1 + _GRACE_S


def test_nothing_is_watched_after_everything_was_sent(clock: _Clock, monitor: WriteMonitor) -> None:
    monitor.start(request_began=0.0)
    monitor.stop()
    assert clock.due is None
