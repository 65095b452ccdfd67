"""``/v1/live``: audio that is predicted while it is sent, its limits, and clients that do not behave."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from tests.e2e.live_client import END, MONO, address, joined, live, predict_live, problem, receive, receive_all
from tests.e2e.requests import assert_problem, count_outcomes, wait_for_outcome
from tests.harness.recordings import wav_bytes
from tests.harness.server import Server, running_server
from tests.harness.waiting import until
from wholetrack.decoding.ffmpeg import Ffmpeg

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


def send_until_closed(connection: ClientConnection, message: bytes, *, pause_s: float = 0.0) -> None:
    """Send a message again and again until the service closes the connection."""
    with suppress(ConnectionClosed):
        while True:
            connection.send(message)
            time.sleep(pause_s)


@pytest.mark.data
def test_live_audio_has_the_windows_of_an_upload_with_the_same_samples(
    server: Server, ffmpeg: Ffmpeg, music: Path
) -> None:
    song = music / "audio" / "full" / "vibe-ace.ogg"
    decode = [ffmpeg.path, "-v", "error", "-i", song, "-t", "40", "-ac", "2", "-ar", "44100", "-f", "s16le", "-"]
    data = subprocess.run(list(map(str, decode)), check=True, capture_output=True).stdout
    wav = wav_bytes(np.frombuffer(data, dtype="<i2").reshape(-1, 2).astype(np.float32) / np.float32(32768), 44100)
    upload = server.post(wav).json()
    events, code = predict_live(server, data, {"encoding": "int16", "sample_rate_hz": 44100, "channels": 2})
    name, result = events[-1]
    assert (events[0][0], name, code) == ("start", "result", 1000)
    assert result["windows"]["start_s"] == upload["windows"]["start_s"]
    # A response has four decimals, so that values that differ in the sixth may be rounded differently.
    np.testing.assert_allclose(
        result["windows"]["probabilities"], upload["windows"]["probabilities"], atol=1.001e-4, rtol=0
    )
    assert result["prediction"]["summed_score"]["genre"] == upload["prediction"]["summed_score"]["genre"]
    for field in ("start_s", "genre", "probabilities"):
        assert joined(events, field) == result["windows"][field]
    track = result["track"]
    assert (track["codec"], track["container"], track["filename"]) == ("pcm_s16le", "s16le", None)
    assert (track["sha256"], track["bytes"]) == (hashlib.sha256(data).hexdigest(), len(data))


def test_windows_are_sent_while_the_audio_goes_on(server: Server, tune: NDArray[np.float32]) -> None:
    with live(server, MONO | {"windows": "top"}) as connection:
        assert receive(connection)[0] == "start"
        starts: list[float] = []
        for second in range(8):
            connection.send(tune[second * RATE : (second + 1) * RATE].tobytes())
            # A window is complete some hundredths of a second after its end.
            while len(starts) < second - 2:
                name, data = receive(connection)
                starts += data["start_s"] if name == "windows" else []
        assert starts == [0, 1, 2, 3, 4]
        connection.send(END)
        events, code = receive_all(connection)
    assert (events[-1][0], code) == ("result", 1000)
    assert events[-1][1]["windows"]["start_s"] == [0, 1, 2, 3, 4, 5]
    assert "probabilities" not in events[-1][1]["windows"]


def test_options_apply_as_in_a_request(server: Server, tune: NDArray[np.float32]) -> None:
    options: dict[str, Any] = {
        "model": "wholetrack-crnn",
        "hop_s": 0.5,
        "top_k": 2,
        "taxonomy": "gtzan",
        "embedding": "track",
    }
    events, _ = predict_live(server, tune.tobytes(), MONO | options)
    upload = server.post(wav_bytes(tune, RATE), **options).json()
    result = events[-1][1]
    assert result["model"] == upload["model"]
    assert len(result["prediction"]["summed_score"]["top_k"]) == 2
    assert result["windows"]["start_s"] == upload["windows"]["start_s"]
    assert len(result["embedding"]["track"]) == len(upload["embedding"]["track"])


def test_without_an_upgrade_the_path_says_what_it_needs(server: Server) -> None:
    response = server.get("/v1/live")
    assert_problem(response, 426, "upgrade_required")
    assert (response.headers["upgrade"], response.headers["connection"]) == ("websocket", "upgrade")
    bad = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "short"}
    assert_problem(httpx.get(f"{server.url}/v1/live", headers=bad), 426, "upgrade_required")
    good = bad | {"Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg=="}
    assert_problem(httpx.get(f"{server.url}/v1/models/none", headers=good), 404, "unknown_model")
    assert "101" in server.get("/openapi.json").json()["paths"]["/v1/live"]["get"]["responses"]


MALFORMED: dict[str, str | bytes] = {
    "not JSON": "hello",
    "not an object": "[1]",
    "deeply nested": "[" * 10_000,
    "too long": json.dumps(MONO | {"key": "x" * 20_000}),
    "binary": b"\x00" * 400,
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_first_message_is_a_problem(server: Server, name: str) -> None:
    with live(server) as connection:
        connection.send(MALFORMED[name])
        events, code = receive_all(connection)
    assert (problem(events)["code"], code) == ("malformed_request", 1007)


INVALID: dict[str, dict[str, Any]] = {
    "no rate": {"encoding": "float32"},
    "rate": {"encoding": "float32", "sample_rate_hz": 1000},
    "channels": MONO | {"channels": 9},
    "encoding": MONO | {"encoding": "mp3"},
    "unknown field": MONO | {"format": "sse"},
    "top_k": MONO | {"top_k": 99},
    "hop": MONO | {"hop_s": 9},
}


@pytest.mark.parametrize("name", INVALID)
def test_an_invalid_option_is_a_problem(server: Server, name: str) -> None:
    with live(server, INVALID[name]) as connection:
        events, code = receive_all(connection)
    assert (problem(events)["code"], code) == ("invalid_parameter", 1008)


def test_an_unknown_model_is_a_problem(server: Server) -> None:
    with live(server, MONO | {"model": "none"}) as connection:
        events, code = receive_all(connection)
    assert (problem(events)["status"], code) == (404, 1008)


@pytest.mark.parametrize("message", [b"\x00" * 401, "not the end", '{"end": false}'])
def test_a_malformed_later_message_is_a_problem(server: Server, message: bytes | str) -> None:
    with live(server, MONO) as connection:
        connection.send(b"\x00" * 400)
        connection.send(message)
        events, code = receive_all(connection)
    assert (problem(events)["code"], code) == ("malformed_request", 1007)
    server.wait_until_clean()


def test_no_audio_is_a_problem(server: Server) -> None:
    events, code = predict_live(server, b"")
    assert (problem(events)["code"], code) == ("empty_audio", 1008)


def test_too_many_small_messages_close_the_connection(server: Server) -> None:
    before = count_outcomes(server, "client_gone")
    with live(server, MONO) as connection:
        send_until_closed(connection, b"\x00" * 4)
        receive_all(connection)
        assert connection.close_code == 1002
        assert "256 bytes per message" in (connection.close_reason or "")
    wait_for_outcome(server, "client_gone", before + 1)


def test_a_message_that_is_too_large_closes_the_connection(server: Server) -> None:
    with live(server, MONO) as connection:
        send_until_closed(connection, b"\x00" * (2 << 20))
        receive_all(connection)
        assert connection.close_code == 1009


def test_a_client_that_leaves_cancels_the_prediction(server: Server, tune: NDArray[np.float32]) -> None:
    before = count_outcomes(server, "client_gone")
    with live(server, MONO) as connection:
        connection.send(tune[: 4 * RATE].tobytes())
        assert receive(connection)[0] == "start"
    wait_for_outcome(server, "client_gone", before + 1)
    # One whose connection is lost without a closing handshake.
    with live(server, MONO) as connection:
        assert receive(connection)[0] == "start"
        connection.socket.shutdown(socket.SHUT_RDWR)
    wait_for_outcome(server, "client_gone", before + 2)
    until(lambda: "wholetrack_predictions_in_progress 0.0" in server.get("/metrics").text, seconds=20)


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
            raw.sendall(
                f"GET /v1/live HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n".encode()
            )
            assert raw.recv(12) == b"HTTP/1.1 101"
            connection.send(tune.tobytes())
            server.process.terminate()
            assert server.process.wait(timeout=30) in {0, None}


def test_frames_that_follow_the_handshake_at_once_are_received(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    mask = os.urandom(4)
    text = b"no JSON"
    frame = bytes([0x81, 0x80 | len(text)]) + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(text))
    with socket.create_connection((host, int(port)), timeout=20) as raw:
        raw.sendall(
            f"GET /v1/live HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n".encode()
            + frame
        )
        received = b""
        while b"malformed_request" not in received:
            chunk = raw.recv(1 << 16)
            assert chunk, received
            received += chunk


def test_the_prefix_of_a_proxy_applies(tmp_path: Path, tune: NDArray[np.float32]) -> None:
    with running_server(tmp_path, root_path="/music") as server:
        assert address(server).endswith("/v1/live")
        events, code = predict_live(server, tune.tobytes())
        assert (events[-1][0], code) == ("result", 1000)
