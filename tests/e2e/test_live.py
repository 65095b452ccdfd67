"""Events of a prediction while it is made: their order, errors, slow clients, and clients that leave."""

from __future__ import annotations

import io
import json
import socket
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.e2e.requests import assert_problem, count_outcomes, wait_for_outcome
from tests.harness.recordings import wav_bytes
from tests.harness.server import Server, running_server

pytestmark = pytest.mark.timing

Events = list[tuple[str, dict[str, Any]]]


def from_sse(lines: Iterator[str]) -> Events:
    events, name = [], ""
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            events.append((name, json.loads(line.removeprefix("data: "))))
    return events


def from_ndjson(lines: Iterator[str]) -> Events:
    return [(event["event"], event["data"]) for event in map(json.loads, lines)]


def stream(server: Server, content: bytes, accept: str = "application/x-ndjson", **query: Any) -> Events:
    """Request the events of a prediction and return all of them."""
    with httpx.stream(
        "POST", f"{server.url}/v1/predict", content=content, headers={"Accept": accept}, params=query, timeout=60
    ) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].partition(";")[0] == accept
        assert response.headers["cache-control"] == "no-store, no-transform"
        assert response.headers["x-accel-buffering"] == "no"
        assert "content-encoding" not in response.headers
        return (from_sse if "event-stream" in accept else from_ndjson)(response.iter_lines())


def joined(events: Events, field: str) -> list[Any]:
    return [value for name, data in events if name == "windows" for value in data[field]]


@pytest.mark.parametrize("accept", ["text/event-stream", "application/x-ndjson"])
def test_the_windows_of_all_events_are_those_of_the_result(
    server: Server, tune: NDArray[np.float32], accept: str
) -> None:
    silence = np.zeros(5 * 22050, dtype=np.float32)
    recording = wav_bytes(np.concatenate([tune, silence, np.tile(tune, 5)]), 22050)
    events = stream(server, recording, accept)
    names = [name for name, _ in events]
    assert names[0] == "start"
    assert names[-1] == "result"
    assert names.count("windows") >= 2
    result = events[-1][1]
    for field in ("start_s", "genre", "probabilities"):
        assert joined(events, field) == result["windows"][field]
    silent = [data["first"] + i for name, data in events if name == "windows" for i in data["silent"]]
    assert silent == result["windows"]["silent"] != []
    assert events[0][1]["model"]["labels"] == result["model"]["labels"]
    # The result is what the ordinary response says.
    ordinary = server.post(recording).json()
    for part in ("model", "prediction", "sections", "windows", "warnings"):
        assert result[part] == ordinary[part]


def test_progress_reports_the_decoded_time_and_the_waveform(server: Server, tune: NDArray[np.float32]) -> None:
    quiet_then_loud = np.concatenate([tune * 0, np.full(220500, 0.5, dtype=np.float32)])
    events = stream(server, wav_bytes(quiet_then_loud, 22050))
    progress = [data for name, data in events if name == "progress"]
    assert progress[-1]["decoded_s"] == pytest.approx(20.0, abs=0.1)
    peaks = [peak for data in progress for peak in data["peaks"]]
    assert len(peaks) == 200
    assert max(peaks[:98]) < 0.1
    assert peaks[110:190] == pytest.approx([0.5] * 80, abs=0.01)


def test_the_detail_of_windows_applies_to_events(server: Server, tune: NDArray[np.float32]) -> None:
    recording = wav_bytes(tune, 22050)
    assert joined(stream(server, recording, windows="top"), "genre")
    (window,) = [data for name, data in stream(server, recording, windows="top") if name == "windows"][:1]
    assert "probabilities" not in window
    assert "windows" not in [name for name, _ in stream(server, recording, windows="none")]


def test_the_parameter_format_overrides_the_header(server: Server, tune: NDArray[np.float32]) -> None:
    events = stream(server, wav_bytes(tune, 22050), "text/event-stream", format="sse")
    assert events[-1][0] == "result"
    url = f"{server.url}/v1/predict?format=json"
    response = httpx.post(url, content=wav_bytes(tune, 22050), headers={"Accept": "text/event-stream"}, timeout=60)
    assert response.json()["windows"]["count"] == 8


def test_a_model_with_several_steps_per_window_reports_each_step_once(
    server: Server, tune: NDArray[np.float32]
) -> None:
    events = stream(server, wav_bytes(np.tile(tune, 7), 22050), model="deepsound-crnn")
    assert joined(events, "start_s") == events[-1][1]["windows"]["start_s"]
    assert joined(events, "probabilities") == events[-1][1]["windows"]["probabilities"]


def test_errors_before_the_first_event_have_their_own_status(server: Server, tune: NDArray[np.float32]) -> None:
    def post(content: bytes, **query: str) -> httpx.Response:
        headers = {"Accept": "text/event-stream"}
        return httpx.post(f"{server.url}/v1/predict", content=content, params=query, headers=headers, timeout=60)

    assert_problem(post(b"no recording"), 415, "unsupported_media")
    assert_problem(post(b""), 400, "malformed_request")
    assert_problem(post(wav_bytes(tune, 22050), top_k="99"), 422, "invalid_parameter")
    assert_problem(post(wav_bytes(tune, 22050), model="none"), 404, "unknown_model")


def test_an_error_after_the_first_event_is_an_event_with_the_problem(tmp_path: Path, tune: NDArray[np.float32]) -> None:
    with running_server(tmp_path, max_duration_s=60) as server:
        events = stream(server, wav_bytes(np.tile(tune, 12), 22050))
        assert events[0][0] == "start"
        name, problem = events[-1]
        assert (name, problem["code"], problem["status"]) == ("error", "audio_too_long", 413)
        assert problem["detail"].startswith("The recording is longer than the limit of 60 seconds.")
        assert len(problem["request_id"]) == 32
        assert count_outcomes(server, "audio_too_long") == 1


def test_a_track_that_is_decoded_again_says_so(server: Server, tune: NDArray[np.float32]) -> None:
    """Channels that cancel each other are found at the latest when all of the file is decoded."""
    left = np.tile(tune, 12)
    stereo = io.BytesIO()
    with wave.open(stereo, "wb") as file:
        file.setparams((2, 2, 22050, 0, "NONE", ""))
        file.writeframes((np.stack([left, -left], axis=1) * 32767).astype("<i2").tobytes())
    events = stream(server, stereo.getvalue())
    names = [name for name, _ in events]
    begin = len(names) - 1 - names[::-1].index("restart") if "restart" in names else 0
    # The first attempt may have ended before anything of it was sent.
    assert names[begin] == ("start" if begin == 0 else "restart")
    assert joined(events[begin:], "probabilities") == events[-1][1]["windows"]["probabilities"]
    assert "cancelled_channels" in [warning["code"] for warning in events[-1][1]["warnings"]]


def test_a_client_that_leaves_cancels_the_prediction(server: Server, tune: NDArray[np.float32]) -> None:
    recording = wav_bytes(np.tile(tune, 60), 22050)
    before = count_outcomes(server, "client_gone")
    request = httpx.stream(
        "POST", f"{server.url}/v1/predict?hop_s=0.1", content=recording, headers={"Accept": "text/event-stream"}
    )
    with request as response:
        assert next(response.iter_lines()) == "event: start"
    wait_for_outcome(server, "client_gone", before + 1)
    server.wait_until_clean()


def test_the_windows_for_a_client_that_reads_slowly_are_merged_into_one_event(
    tmp_path: Path, tune: NDArray[np.float32]
) -> None:
    """The buffers of the connection hold about 350 kB, and the events of 6,000 windows are larger."""
    with running_server(tmp_path, client_timeout_s=120) as server:
        recording = wav_bytes(np.tile(tune, 60), 22050)
        with slow_request(server, recording, query="?hop_s=0.1&model=guimaraes-cnn") as connection:
            received = connection.recv(4096)
            # Read on when the prediction is made.
            wait_for_outcome(server, "ok", 1, seconds=100)
            while not received.endswith(b"0\r\n\r\n"):
                chunk = connection.recv(1 << 16)
                assert chunk, "the connection was closed"
                received += chunk
    headers, _, body = received.partition(b"\r\n\r\n")
    assert b"chunked" in headers
    events = from_ndjson(iter(unchunked(body).decode().splitlines()))
    result = events[-1][1]
    assert joined(events, "probabilities") == result["windows"]["probabilities"]
    counts = [data["count"] for name, data in events if name == "windows"]
    # Nobody waited for the client: those that found no place in the buffers are in the last two events.
    assert sum(counts[-2:]) > result["windows"]["count"] / 4


def test_a_client_that_stops_reading_is_disconnected(tmp_path: Path, tune: NDArray[np.float32]) -> None:
    with running_server(tmp_path, client_timeout_s=1, max_windows=200_000) as server:
        recording = wav_bytes(np.tile(tune, 60), 22050)
        with slow_request(server, recording, query="?hop_s=0.1") as connection:
            assert connection.recv(100)
            deadline = time.monotonic() + 60
            while "too slowly" not in server.log.read_text():
                assert time.monotonic() < deadline
                time.sleep(0.1)
        server.wait_until_clean()


def unchunked(body: bytes) -> bytes:
    """Return the content of a body with the transfer coding chunked."""
    content = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        content += rest[: int(size, 16)]
        body = rest[int(size, 16) + 2 :]
    return content


def slow_request(server: Server, recording: bytes, query: str = "") -> socket.socket:
    """Send a request for events on a connection with a small receive buffer."""
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(60)
    connection.connect((host, int(port)))
    headers = (
        f"POST /v1/predict{query} HTTP/1.1\r\nHost: {host}\r\nAccept: application/x-ndjson\r\n"
        f"Content-Length: {len(recording)}\r\n\r\n"
    )
    connection.sendall(headers.encode() + recording)
    return connection


def test_a_shutdown_ends_the_stream_with_an_event(tmp_path: Path, tune: NDArray[np.float32]) -> None:
    with running_server(tmp_path, shutdown_timeout_s=1, max_windows=200_000) as server:
        recording = wav_bytes(np.tile(tune, 60), 22050)
        with httpx.stream(
            "POST",
            f"{server.url}/v1/predict?hop_s=0.1&windows=none",
            content=recording,
            headers={"Accept": "application/x-ndjson"},
            timeout=60,
        ) as response:
            lines = response.iter_lines()
            assert json.loads(next(lines))["event"] == "start"
            server.process.terminate()
            events = from_ndjson(lines)
        assert events[-1][0] == "error"
        assert events[-1][1]["code"] == "draining"
