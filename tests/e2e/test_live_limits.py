"""Who may use ``/v1/live``, its limits, and what happens to it when the service shuts down."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.e2e.live_client import (
    END,
    MONO,
    joined,
    live,
    predict_live,
    problem,
    receive,
    receive_all,
    send_until_closed,
)
from tests.e2e.requests import wait_for_outcome
from tests.harness.server import Server, running_server
from tests.harness.waiting import until

pytestmark = pytest.mark.timing

RATE = 22050
_ALICE, _BOB = "alices-key-of-enough-characters", "bobs-key-of-enough-characters"


def refusal(server: Server, **options: Any) -> tuple[int, dict[str, Any]]:
    """Return the status and the problem with which a handshake is refused."""
    with pytest.raises(InvalidStatus) as caught, live(server, **options):
        pass
    response = caught.value.response
    assert response.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = json.loads(response.body)
    assert response.headers["x-request-id"] == found["request_id"]
    return response.status_code, found


def test_origins_of_other_hosts_are_refused(server: Server) -> None:
    for origin in ("https://example.org", "null", server.url.replace("127.0.0.1", "localhost"), "https://127.0.0.1"):
        status, found = refusal(server, origin=origin)
        assert (status, found["code"]) == (403, "forbidden_origin")
    with live(server, origin=server.url) as connection:
        assert connection.response
        assert connection.response.status_code == 101


def test_a_request_for_another_host_is_refused(server: Server) -> None:
    """A page of another domain whose name resolves to this machine has the origin of that domain."""
    port = server.url.rpartition(":")[2]
    headers = {"Origin": f"http://rebound.example:{port}", "Host": f"rebound.example:{port}"}
    handshake = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
    }
    response = httpx.get(f"{server.url}/v1/live", headers=headers | handshake)
    assert (response.status_code, response.json()["code"]) == (421, "unknown_host")


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service that requires keys, for pages of one other origin."""
    keys = tmp_path_factory.mktemp("keys") / "keys.toml"
    digest = hashlib.sha256(_BOB.encode()).hexdigest()
    keys.write_text(f'[bob]\nsha256 = "{digest}"\nrequests_per_minute = 3\nconcurrent = 1\n')
    folder = tmp_path_factory.mktemp("closed")
    origins = '["https://example.org"]'
    with running_server(
        folder, api_keys=f"alice:{_ALICE}", api_keys_file=keys, cors_origins=origins, log_level="debug"
    ) as started:
        yield started


@pytest.mark.parametrize("key", [{}, {"key": None}, {"key": "wrong"}, {"key": 7}, {"key": _ALICE[:-1]}])
def test_without_a_valid_key_nothing_is_predicted(closed: Server, key: dict[str, Any]) -> None:
    # Not even the other fields are checked.
    for fields in (MONO, {"encoding": "none"}):
        with live(closed, fields | key) as connection:
            events, code = receive_all(connection)
        assert (problem(events)["code"], code) == ("unauthorised", 1008)
        assert len(events) == 1


def test_the_key_in_the_first_message_is_accepted_and_not_logged(closed: Server, tune: NDArray[np.float32]) -> None:
    start = MONO | {"key": _ALICE}
    events, code = predict_live(closed, tune.tobytes(), start, origin="https://example.org")
    assert (events[-1][0], code) == ("result", 1000)
    log = closed.log.read_text()
    assert '"key": "alice"' in log
    assert _ALICE not in log


def test_a_key_has_a_concurrency_limit_and_a_rate_limit(closed: Server, tune: NDArray[np.float32]) -> None:
    start = MONO | {"key": _BOB}
    with live(closed, start) as first:
        assert receive(first)[0] == "start"
        events, code = predict_live(closed, tune.tobytes(), start)
        assert (problem(events)["code"], code) == ("overloaded", 1013)
        assert problem(events)["retry_after_s"] == 1
    until(lambda: predict_live(closed, tune.tobytes(), start)[1] == 1000, seconds=20)
    outcomes = [predict_live(closed, tune.tobytes(), start)[0] for _ in range(3)]
    assert "requests per minute" in problem(outcomes[-1])["detail"]


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service with small limits."""
    limits = {
        "client_timeout_s": 1,
        "max_duration_s": 30,
        "max_upload_bytes": 40 * RATE * 4,
        "max_live": 2,
        "max_connections": 4,
    }
    with running_server(tmp_path_factory.mktemp("limited"), **limits) as started:
        yield started


def test_audio_that_is_too_long_is_a_problem(limited: Server, tune: NDArray[np.float32]) -> None:
    events, code = predict_live(limited, np.tile(tune, 3).tobytes() + tune[:RATE].tobytes())
    assert (problem(events)["code"], code) == ("audio_too_long", 1009)


def test_audio_of_too_many_bytes_is_a_problem(limited: Server, tune: NDArray[np.float32]) -> None:
    stereo = np.tile(tune, 5).tobytes()
    events, code = predict_live(limited, stereo, MONO | {"channels": 2})
    assert (problem(events)["code"], code) == ("upload_too_large", 1009)


def test_clients_that_send_nothing_or_too_little_are_disconnected(limited: Server, tune: NDArray[np.float32]) -> None:
    with live(limited) as connection:
        events, code = receive_all(connection)
    assert (problem(events)["code"], code) == ("request_too_slow", 1008)
    with live(limited, MONO) as connection:
        connection.send(tune[:RATE].tobytes())
        events, code = receive_all(connection)
    assert (problem(events)["code"], code) == ("request_too_slow", 1008)
    with live(limited, MONO) as connection:
        # Twenty messages per second, with a thousandth of the audio.
        send_until_closed(connection, tune[:64].tobytes(), pause_s=0.05)
        assert problem(receive_all(connection)[0])["code"] == "request_too_slow"


def test_live_predictions_and_connections_are_limited(limited: Server, tune: NDArray[np.float32]) -> None:
    with ExitStack() as held:
        for _ in range(2):
            connection = held.enter_context(live(limited, MONO))
            connection.send(tune[: 5 * RATE].tobytes())
            assert receive(connection)[0] == "start"
        events, code = predict_live(limited, tune.tobytes())
        assert (problem(events)["code"], code) == ("overloaded", 1013)
        assert "live predictions" in problem(events)["detail"]
    until(lambda: "wholetrack_predictions_in_progress 0.0" in limited.get("/metrics").text, seconds=20)
    with ExitStack() as held:
        for _ in range(4):
            held.enter_context(live(limited))
        status, found = refusal(limited)
        assert (status, found["code"]) == (429, "overloaded")
        assert limited.get("/healthz").status_code == 200


def test_a_client_that_stops_reading_is_disconnected(tmp_path: Path, tune: NDArray[np.float32]) -> None:
    with running_server(tmp_path, client_timeout_s=1, max_windows=200_000) as server:
        host, port = server.url.removeprefix("http://").split(":")
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect((host, int(port)))
        with live(server, MONO | {"hop_s": 0.1}, sock=raw, max_queue=1) as connection:
            send_until_closed(connection, tune.tobytes())
            assert "too slowly" in server.log.read_text()
        wait_for_outcome(server, "client_gone", 1)


def test_what_a_slow_client_has_not_read_is_merged(tmp_path: Path, tune: NDArray[np.float32]) -> None:
    with running_server(tmp_path, client_timeout_s=120) as server:
        host, port = server.url.removeprefix("http://").split(":")
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect((host, int(port)))
        start = MONO | {"hop_s": 0.1, "model": "guimaraes-cnn"}
        with live(server, start, sock=raw, max_queue=1, ping_interval=None) as connection:
            for _ in range(60):
                connection.send(tune.tobytes())
            connection.send(END)
            wait_for_outcome(server, "ok", 1, seconds=100)
            events, code = receive_all(connection)
    assert (events[-1][0], code) == ("result", 1000)
    assert joined(events, "probabilities") == events[-1][1]["windows"]["probabilities"]
    counts = [data["count"] for name, data in events if name == "windows"]
    assert sum(counts[-2:]) > sum(counts) / 4


def test_a_shutdown_ends_the_audio_and_sends_the_result(tmp_path: Path, tune: NDArray[np.float32]) -> None:
    with running_server(tmp_path) as server, live(server) as idle, live(server, MONO) as connection:
        connection.send(tune[: 5 * RATE].tobytes())
        events = [receive(connection)]
        while events[-1][0] != "windows":
            events.append(receive(connection))
        server.process.terminate()
        rest, code = receive_all(connection)
        assert (rest[-1][0], code) == ("result", 1012)
        assert rest[-1][1]["track"]["duration_s"] == pytest.approx(5.0, abs=0.01)
        events, code = receive_all(idle)
        assert (problem(events)["code"], code) == ("draining", 1012)


def test_a_shutdown_does_not_wait_for_a_client_that_leaves_the_connection_open(
    tmp_path: Path, tune: NDArray[np.float32]
) -> None:
    """The client neither reads nor answers the closing handshake."""
    with running_server(tmp_path, shutdown_timeout_s=2) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as raw, live(server, MONO) as connection:
            raw.sendall(_HANDSHAKE.encode())
            assert raw.recv(12) == b"HTTP/1.1 101"
            connection.send(tune.tobytes())
            server.process.terminate()
            assert server.process.wait(timeout=30) in {0, None}


_HANDSHAKE = (
    "GET /v1/live HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)


def test_frames_that_are_refused_and_sent_before_the_response_get_that_response_first(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    tiny = bytes([0x82, 0x80]) + bytes(4)
    for frames in (tiny * 400, b"\xff" * 100, b"\x89"):
        with socket.create_connection((host, int(port)), timeout=20) as raw:
            raw.sendall(_HANDSHAKE.encode() + frames)
            raw.shutdown(socket.SHUT_WR)
            received = b""
            while part := raw.recv(1 << 16):
                received += part
        assert received.startswith(b"HTTP/1.1 101 ")
        refused = b"\r\n\r\n\x88" in received
        assert refused == (len(frames) > 1)
    # The log has no traceback, which the fixture checks.


@pytest.mark.parametrize("before", ["", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_a_connection_may_have_had_requests_and_frames_may_follow_at_once(server: Server, before: str) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    mask = os.urandom(4)
    text = b"no JSON"
    frame = bytes([0x81, 0x80 | len(text)]) + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(text))
    with socket.create_connection((host, int(port)), timeout=20) as raw:
        received = b""
        if before:
            raw.sendall(before.encode())
            while b'"alive"' not in received and b"}" not in received:
                received += raw.recv(1 << 16)
        raw.sendall(_HANDSHAKE.encode() + frame)
        while b"malformed_request" not in received:
            chunk = raw.recv(1 << 16)
            assert chunk, received
            received += chunk
    assert b"HTTP/1.1 101" in received


def test_the_prefix_of_a_proxy_applies(tmp_path: Path, tune: NDArray[np.float32]) -> None:
    with running_server(tmp_path, root_path="/music") as server:
        for path in ("/v1/live", "/music/v1/live", "/music/v1/live/"):
            with connect(server.url.replace("http", "ws", 1) + path, max_size=None, proxy=None) as connection:
                connection.send(json.dumps(MONO))
                connection.send(tune.tobytes())
                connection.send(END)
                events, code = receive_all(connection)
            assert (events[-1][0], code) == ("result", 1000)
        with pytest.raises(InvalidStatus):
            connect(server.url.replace("http", "ws", 1) + "/other/v1/live", proxy=None)
