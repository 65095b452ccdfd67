"""Every entry of the error table, with the real bad file or request that earns it, and nothing left behind."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from tests.harness.recordings import Recorder, wav_bytes
from tests.harness.server import Server, running_server

RATE = 22050


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service with small limits."""
    folder = tmp_path_factory.mktemp("strict")
    with running_server(folder, max_upload_bytes=8_000_000, max_duration_s=60, request_timeout_s=20) as started:
        yield started


@pytest.fixture(autouse=True)
def _nothing_left_behind(strict: Server) -> Iterator[None]:
    strict.get("/readyz")
    before = strict.descriptors()
    yield
    strict.wait_until_clean()
    deadline = time.monotonic() + 10
    while strict.descriptors() > before:
        assert time.monotonic() < deadline, f"{before} descriptors before, {strict.descriptors()} after"
        time.sleep(0.05)


@pytest.fixture
def song(tune: NDArray[np.float32]) -> bytes:
    return wav_bytes(tune, RATE)


def assert_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["code"] == code
    assert problem["status"] == status
    assert problem["type"] == f"urn:wholetrack:problem:{code}"
    assert problem["request_id"] == response.headers["x-request-id"]
    assert problem["title"]
    assert problem["detail"].endswith(".")
    assert "/" not in problem["detail"].replace("see /docs", "").replace("See /docs", "")
    return problem


def test_no_file(strict: Server) -> None:
    assert_problem(httpx.post(f"{strict.url}/v1/predict"), 400, "malformed_request")
    form = {"nothing": (None, "here")}
    assert_problem(httpx.post(f"{strict.url}/v1/predict", files=form), 400, "malformed_request")


def test_two_files(strict: Server, song: bytes) -> None:
    files = [("file", ("a.wav", song)), ("file", ("b.wav", song))]
    assert_problem(httpx.post(f"{strict.url}/v1/predict", files=files), 400, "malformed_request")


def test_a_form_that_is_none(strict: Server) -> None:
    headers = {"content-type": "multipart/form-data; boundary=x"}
    response = httpx.post(f"{strict.url}/v1/predict", content=b"hello", headers=headers)
    assert_problem(response, 400, "malformed_request")


def test_an_empty_file(strict: Server) -> None:
    assert_problem(strict.post(b"", "empty.mp3"), 422, "empty_audio")


def test_a_wav_without_samples(strict: Server) -> None:
    assert_problem(strict.post(wav_bytes(np.zeros(0, dtype=np.float32), RATE)), 422, "empty_audio")


@pytest.mark.parametrize("name", ["text", "picture", "archive"])
def test_what_is_not_audio_but_is_called_mp3(strict: Server, recorder: Recorder, tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.mp3"
    match name:
        case "text":
            path.write_text("This is no song.\n" * 5000)
        case "picture":
            recorder.picture(path)
        case "archive":
            song = tmp_path / "song.mp3"
            recorder.run("-f", "lavfi", "-i", "sine=d=10", song)
            with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
                archive.write(song)
    assert_problem(strict.post(path), 415, "unsupported_media")


def test_playlists_reach_neither_file_nor_address(strict: Server, song: bytes, tmp_path: Path) -> None:
    asked: list[str] = []

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(song)

        def log_message(self, *_: object) -> None:
            pass

    secret = tmp_path / "secret.wav"
    secret.write_bytes(song)
    listener = ThreadingHTTPServer(("127.0.0.1", 0), Listener)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    with listener:
        address = f"http://127.0.0.1:{listener.server_address[1]}/song.wav"
        for target in (f"file://{secret}", str(secret), address):
            playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{target}\n#EXT-X-ENDLIST\n"
            assert_problem(strict.post(playlist.encode(), "song.mp3"), 415, "unsupported_media")
            script = f"ffconcat version 1.0\nfile '{target}'\n"
            assert_problem(strict.post(script.encode(), "song.mp3"), 415, "unsupported_media")
        assert asked == []
        listener.shutdown()


def test_a_video_without_audio(strict: Server, recorder: Recorder, tmp_path: Path) -> None:
    path = tmp_path / "mute.mp4"
    recorder.run("-f", "lavfi", "-i", "testsrc=d=2:s=64x64", path)
    assert_problem(strict.post(path), 422, "no_audio_stream")


def test_an_mp4_that_lost_its_index(strict: Server, recorder: Recorder, tmp_path: Path) -> None:
    path = tmp_path / "song.m4a"
    recorder.run("-f", "lavfi", "-i", "sine=d=30", path)
    assert_problem(strict.post(path.read_bytes()[:50_000]), 422, "undecodable_audio")


@pytest.mark.data
def test_an_mp3_cut_in_the_middle_is_answered_and_says_so(strict: Server, music: Path) -> None:
    whole = (music / "audio/full/fantasma.mp3").read_bytes()
    response = strict.post(whole[: len(whole) // 3], "fantasma.mp3")
    assert response.status_code == 200, response.text
    answer = response.json()
    assert 45 < answer["track"]["duration_s"] < 60
    assert [warning["code"] for warning in answer["warnings"]] == ["truncated"]


def test_a_wav_that_promises_more_is_answered_and_says_so(strict: Server, tune: NDArray[np.float32]) -> None:
    response = strict.post(wav_bytes(tune, RATE, stated_bytes=10**9))
    assert response.status_code == 200
    assert response.json()["track"]["duration_s"] == 10.0
    assert [warning["code"] for warning in response.json()["warnings"]] == ["truncated"]


def test_a_recording_shorter_than_a_window_is_padded_and_says_so(strict: Server, tune: NDArray[np.float32]) -> None:
    response = strict.post(wav_bytes(tune[:RATE], RATE))
    assert response.status_code == 200
    assert response.json()["windows"]["count"] == 1
    assert [warning["code"] for warning in response.json()["warnings"]] == ["padded"]


def test_silence_is_an_answer_without_a_genre(strict: Server) -> None:
    response = strict.post(wav_bytes(np.zeros(5 * RATE, dtype=np.float32), RATE))
    assert response.status_code == 200
    answer = response.json()
    assert answer["prediction"]["summed_score"] == {"genre": None, "share": 0.0, "top_k": []}
    assert answer["windows"]["genre"] == [None] * 3
    assert answer["windows"]["silent"] == [0, 1, 2]


@pytest.mark.parametrize(
    "query",
    [
        {"top_k": 0},
        {"top_k": 99},
        {"top_k": "many"},
        {"hop_s": -1},
        {"hop_s": 0},
        {"hop_s": 0.01},
        {"hop_s": 3.1},
        {"hop_s": "nan"},
        {"hop_s": "inf"},
        {"windows": "some"},
        {"topk": 3},
    ],
)
def test_an_invalid_parameter(strict: Server, song: bytes, query: dict[str, Any]) -> None:
    (name,) = query
    problem = assert_problem(strict.post(song, **query), 422, "invalid_parameter")
    assert name in problem["detail"]


def test_an_unknown_model(strict: Server, song: bytes) -> None:
    problem = assert_problem(strict.post(song, model="nobody"), 404, "unknown_model")
    assert "wholetrack-crnn" in problem["detail"]
    assert_problem(strict.get("/v1/models/nobody"), 404, "unknown_model")


def test_an_unknown_address_and_method(strict: Server) -> None:
    assert_problem(strict.get("/v2/predict"), 404, "not_found")
    assert_problem(strict.get("/v1/predict"), 405, "method_not_allowed")


def test_an_upload_over_the_limit(strict: Server) -> None:
    content = b"RIFF" + bytes(9_000_000)
    assert_problem(strict.post(content), 413, "upload_too_large")

    def pieces() -> Iterator[bytes]:
        for begin in range(0, len(content), 100_000):
            yield content[begin : begin + 100_000]

    # Without a stated length only counting helps.
    assert_problem(httpx.post(f"{strict.url}/v1/predict", content=pieces()), 413, "upload_too_large")


def test_a_small_file_with_a_long_recording_is_stopped_while_decoding(
    strict: Server, recorder: Recorder, tmp_path: Path
) -> None:
    """Ten hours of silence: four megabytes, and three gigabytes of PCM if anybody let it."""
    bomb = tmp_path / "bomb.flac"
    recorder.run("-f", "lavfi", "-i", "anullsrc=r=8000:cl=mono", "-t", "36000", bomb)
    assert bomb.stat().st_size < 8_000_000
    strict.post(wav_bytes(np.full(RATE, 0.5, dtype=np.float32), RATE))
    before = strict.peak_bytes()
    assert_problem(strict.post(bomb), 413, "audio_too_long")
    assert strict.peak_bytes() - before < 100_000_000


def test_a_request_over_its_time_limit(tmp_path: Path, recorder: Recorder) -> None:
    long = tmp_path / "long.flac"
    recorder.run("-f", "lavfi", "-i", "anoisesrc=r=22050", "-t", "1800", long)
    with running_server(tmp_path, request_timeout_s=0.3) as hurried:
        assert_problem(hurried.post(long), 504, "deadline_exceeded")
        hurried.wait_until_clean()
        with slow_upload(hurried, total=1000) as connection:
            connection.sendall(b"RIFF")
            assert b" 504 " in connection.recv(100)


def slow_upload(server: Server, *, total: int) -> socket.socket:
    """A connection that has announced an upload of ``total`` bytes."""
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    connection.sendall(f"POST /v1/predict HTTP/1.1\r\nHost: {host}\r\nContent-Length: {total}\r\n\r\n".encode())
    return connection


def test_every_outcome_is_counted_and_every_log_line_names_its_request(strict: Server, song: bytes) -> None:
    before = {code: outcomes(strict, code) for code in ("ok", "invalid_parameter", "unsupported_media")}
    assert strict.post(song).status_code == 200
    strict.post(song, top_k=0)
    strict.post(song, top_k=99)
    refused = strict.post(b"no song" * 1000)
    after = {code: outcomes(strict, code) - count for code, count in before.items()}
    assert after == {"ok": 1, "invalid_parameter": 2, "unsupported_media": 1}
    lines = [json.loads(line) for line in strict.log.read_text().splitlines()]
    (reason,) = [
        line
        for line in lines
        if line["request_id"] == refused.headers["x-request-id"] and "produced no audio" in line["message"]
    ]
    assert "Invalid data" in reason["message"]


def outcomes(server: Server, code: str) -> float:
    line = f'wholetrack_predictions_total{{code="{code}"}} '
    return sum(
        float(row.removeprefix(line)) for row in server.get("/metrics").text.splitlines() if row.startswith(line)
    )


def wait_for_outcome(server: Server, code: str, count: float) -> None:
    deadline = time.monotonic() + 20
    while outcomes(server, code) < count:
        assert time.monotonic() < deadline, server.get("/metrics").text
        time.sleep(0.05)


def test_a_client_that_leaves_during_its_upload(strict: Server, song: bytes) -> None:
    before = outcomes(strict, "client_gone")
    with slow_upload(strict, total=len(song)) as connection:
        connection.sendall(song[:200_000])
        while not strict.leftovers()["files"]:
            time.sleep(0.01)
    wait_for_outcome(strict, "client_gone", before + 1)


def test_a_client_that_leaves_while_it_waits(tmp_path: Path, recorder: Recorder) -> None:
    long = tmp_path / "long.flac"
    recorder.run("-f", "lavfi", "-i", "anoisesrc=r=22050", "-t", "3000", long)
    content = long.read_bytes()
    with running_server(tmp_path) as patient:
        with slow_upload(patient, total=len(content)) as connection:
            connection.sendall(content)
            while not patient.leftovers()["children"]:
                time.sleep(0.01)
        wait_for_outcome(patient, "client_gone", 1)
        patient.wait_until_clean()


def test_more_requests_than_are_admitted(tmp_path: Path, song: bytes) -> None:
    with running_server(tmp_path, max_requests=1) as small:
        with slow_upload(small, total=len(song)) as connection:
            connection.sendall(song[:1000])
            while "in_progress 1.0" not in small.get("/metrics").text:
                time.sleep(0.01)
            response = small.post(song)
            assert_problem(response, 429, "overloaded")
            assert int(response.headers["retry-after"]) > 0
        wait_for_outcome(small, "client_gone", 1)
        assert small.post(song).status_code == 200


def test_a_shutdown_answers_what_is_under_way(tmp_path: Path, recorder: Recorder) -> None:
    response = _stopped_during(tmp_path, recorder, seconds=600, shutdown_timeout_s=60)
    assert response.status_code == 200
    assert response.json()["windows"]["count"] == 598


def test_a_shutdown_past_its_limit_says_so(tmp_path: Path, recorder: Recorder) -> None:
    assert_problem(_stopped_during(tmp_path, recorder, seconds=5000, shutdown_timeout_s=1), 503, "draining")


def test_while_it_drains_nothing_new_is_admitted(tmp_path: Path, recorder: Recorder, song: bytes) -> None:
    def ask(server: Server) -> None:
        while server.get("/readyz").status_code == 200:
            time.sleep(0.01)
        assert_problem(server.get("/readyz"), 503, "draining")
        assert_problem(server.post(song), 503, "draining")
        assert server.get("/healthz").status_code == 200

    response = _stopped_during(tmp_path, recorder, seconds=1200, shutdown_timeout_s=60, meanwhile=ask)
    assert response.status_code == 200


def _stopped_during(
    folder: Path,
    recorder: Recorder,
    *,
    seconds: int,
    shutdown_timeout_s: int,
    meanwhile: Callable[[Server], None] = lambda _: None,
) -> httpx.Response:
    """The answer to a prediction during which the service is told to stop."""
    long = folder / "long.flac"
    recorder.run("-f", "lavfi", "-i", "anoisesrc=r=8000", "-t", str(seconds), long)
    limits = {"shutdown_timeout_s": shutdown_timeout_s, "max_duration_s": 20_000, "max_upload_bytes": 10**9}
    with running_server(folder, **limits) as stopped, ThreadPoolExecutor(1) as client:
        answer = client.submit(stopped.post, long)
        while not stopped.leftovers()["children"]:
            time.sleep(0.01)
        stopped.process.send_signal(signal.SIGTERM)
        meanwhile(stopped)
        response = answer.result()
        while stopped.process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        return response
