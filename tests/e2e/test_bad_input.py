"""Every error in the table, caused by a real file or request of its kind. None leaves anything behind."""

from __future__ import annotations

import json
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.e2e.requests import assert_problem, count_outcomes, start_upload, wait_for_outcome
from tests.harness.recordings import Recorder, wav_bytes
from tests.harness.server import Server, running_server

pytestmark = pytest.mark.timing

RATE = 22050


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service with small limits."""
    folder = tmp_path_factory.mktemp("strict")
    with running_server(folder, max_upload_bytes=8_000_000, max_duration_s=60, request_timeout_s=20) as started:
        yield started


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(strict: Server) -> Iterator[None]:
    strict.get("/readyz")
    before = strict.descriptors()
    yield
    strict.wait_until_clean()
    strict.wait_for_descriptors(before)


@pytest.fixture
def song(tune: NDArray[np.float32]) -> bytes:
    return wav_bytes(tune, RATE)


def test_a_request_without_a_file_is_malformed(strict: Server) -> None:
    assert_problem(httpx.post(f"{strict.url}/v1/predict"), 400, "malformed_request")
    form = {"nothing": (None, "here")}
    assert_problem(httpx.post(f"{strict.url}/v1/predict", files=form), 400, "malformed_request")


def test_a_request_with_two_files_is_malformed(strict: Server, song: bytes) -> None:
    files = [("file", ("a.wav", song)), ("file", ("b.wav", song))]
    assert_problem(httpx.post(f"{strict.url}/v1/predict", files=files), 400, "malformed_request")


def test_a_body_that_is_not_the_form_it_claims_to_be_is_malformed(strict: Server) -> None:
    headers = {"content-type": "multipart/form-data; boundary=x"}
    response = httpx.post(f"{strict.url}/v1/predict", content=b"hello", headers=headers)
    assert_problem(response, 400, "malformed_request")


def test_an_empty_file_is_empty_audio(strict: Server) -> None:
    assert_problem(strict.post(b"", "empty.mp3"), 422, "empty_audio")


def test_a_wav_without_samples_is_empty_audio(strict: Server) -> None:
    assert_problem(strict.post(wav_bytes(np.zeros(0, dtype=np.float32), RATE)), 422, "empty_audio")


@pytest.mark.parametrize("name", ["text", "picture", "archive"])
def test_a_file_named_mp3_that_is_not_audio_is_unsupported(
    strict: Server, recorder: Recorder, tmp_path: Path, name: str
) -> None:
    path = tmp_path / f"{name}.mp3"
    match name:
        case "text":
            path.write_text("This is not a song.\n" * 5000)
        case "picture":
            recorder.picture(path)
        case "archive":
            song = tmp_path / "song.mp3"
            recorder.run("-f", "lavfi", "-i", "sine=d=10", song)
            with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
                archive.write(song)
    assert_problem(strict.post(path), 415, "unsupported_media")


def test_playlists_open_neither_files_nor_urls(strict: Server, song: bytes, tmp_path: Path) -> None:
    requested: list[str] = []

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requested.append(self.path)
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
        url = f"http://127.0.0.1:{listener.server_address[1]}/song.wav"
        for target in (f"file://{secret}", str(secret), url):
            playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{target}\n#EXT-X-ENDLIST\n"
            assert_problem(strict.post(playlist.encode(), "song.mp3"), 415, "unsupported_media")
            script = f"ffconcat version 1.0\nfile '{target}'\n"
            assert_problem(strict.post(script.encode(), "song.mp3"), 415, "unsupported_media")
        assert requested == []
        listener.shutdown()


def test_a_video_without_audio_has_no_audio_stream(strict: Server, recorder: Recorder, tmp_path: Path) -> None:
    path = tmp_path / "mute.mp4"
    recorder.run("-f", "lavfi", "-i", "testsrc=d=2:s=64x64", path)
    assert_problem(strict.post(path), 422, "no_audio_stream")


def test_an_mp4_without_its_index_is_undecodable(strict: Server, recorder: Recorder, tmp_path: Path) -> None:
    path = tmp_path / "song.m4a"
    recorder.run("-f", "lavfi", "-i", "sine=d=30", path)
    assert_problem(strict.post(path.read_bytes()[:50_000]), 422, "undecodable_audio")


@pytest.mark.data
def test_a_truncated_mp3_is_predicted_with_a_warning(strict: Server, music: Path) -> None:
    whole = (music / "audio/full/fantasma.mp3").read_bytes()
    response = strict.post(whole[: len(whole) // 3], "fantasma.mp3", model="wholetrack-crnn-gtzan")
    assert response.status_code == 200, response.text
    body = response.json()
    assert 45 < body["track"]["duration_s"] < 60
    assert [warning["code"] for warning in body["warnings"]] == ["truncated"]


def test_a_wav_shorter_than_its_header_states_is_predicted_with_a_warning(
    strict: Server, tune: NDArray[np.float32]
) -> None:
    response = strict.post(wav_bytes(tune, RATE, stated_bytes=10**9))
    assert response.status_code == 200
    assert response.json()["track"]["duration_s"] == 10.0
    assert [warning["code"] for warning in response.json()["warnings"]] == ["truncated", "out_of_domain"]


def test_a_recording_shorter_than_a_window_is_padded_with_a_warning(strict: Server, tune: NDArray[np.float32]) -> None:
    response = strict.post(wav_bytes(tune[:RATE], RATE))
    assert response.status_code == 200
    assert response.json()["windows"]["count"] == 1
    assert [warning["code"] for warning in response.json()["warnings"]] == ["padded", "out_of_domain"]


def test_silence_is_predicted_without_a_genre(strict: Server) -> None:
    response = strict.post(wav_bytes(np.zeros(5 * RATE, dtype=np.float32), RATE))
    assert response.status_code == 200
    body = response.json()
    assert body["prediction"]["summed_score"] == {"genre": None, "share": 0.0, "top_k": []}
    assert body["windows"]["genre"] == [None] * 3
    assert body["windows"]["silent"] == [0, 1, 2]


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
def test_an_invalid_parameter_is_named_in_the_detail(strict: Server, song: bytes, query: dict[str, Any]) -> None:
    (name,) = query
    problem = assert_problem(strict.post(song, **query), 422, "invalid_parameter")
    assert name in problem["detail"]


def test_an_unknown_model_is_refused_with_a_list_of_the_served_ones(strict: Server, song: bytes) -> None:
    problem = assert_problem(strict.post(song, model="nobody"), 404, "unknown_model")
    assert "wholetrack-crnn" in problem["detail"]
    assert_problem(strict.get("/v1/models/nobody"), 404, "unknown_model")


def test_an_unknown_path_and_an_unknown_method_are_problems(strict: Server) -> None:
    assert_problem(strict.get("/v2/predict"), 404, "not_found")
    assert_problem(strict.get("/v1/predict"), 405, "method_not_allowed")


def test_an_upload_above_the_limit_is_refused(strict: Server) -> None:
    content = b"RIFF" + bytes(9_000_000)
    assert_problem(strict.post(content), 413, "upload_too_large")

    def chunks() -> Iterator[bytes]:
        for begin in range(0, len(content), 100_000):
            yield content[begin : begin + 100_000]

    # Without a content length, the service has to count.
    assert_problem(httpx.post(f"{strict.url}/v1/predict", content=chunks()), 413, "upload_too_large")


def test_a_small_file_with_a_long_recording_is_stopped_while_decoding(
    strict: Server, recorder: Recorder, tmp_path: Path
) -> None:
    """Ten hours of silence are four megabytes of flac, and would be three gigabytes of PCM."""
    bomb = tmp_path / "bomb.flac"
    recorder.run("-f", "lavfi", "-i", "anullsrc=r=8000:cl=mono", "-t", "36000", bomb)
    assert bomb.stat().st_size < 8_000_000
    strict.post(wav_bytes(np.full(RATE, 0.5, dtype=np.float32), RATE))
    before = strict.peak_bytes()
    assert_problem(strict.post(bomb), 413, "audio_too_long")
    assert strict.peak_bytes() - before < 100_000_000


def test_a_request_above_the_time_limit_is_stopped(tmp_path: Path, recorder: Recorder) -> None:
    long = tmp_path / "long.flac"
    recorder.run("-f", "lavfi", "-i", "anoisesrc=r=22050", "-t", "1800", long)
    with running_server(tmp_path, request_timeout_s=0.3) as hurried:
        assert_problem(hurried.post(long), 504, "deadline_exceeded")
        hurried.wait_until_clean()
        with start_upload(hurried, content_length=1000) as connection:
            connection.sendall(b"RIFF")
            assert b" 504 " in connection.recv(100)


def test_predictions_above_the_limit_are_refused(tmp_path: Path, song: bytes) -> None:
    with running_server(tmp_path, max_requests=1) as small:
        with start_upload(small, content_length=len(song)) as connection:
            connection.sendall(song[:1000])
            while "in_progress 1.0" not in small.get("/metrics").text:
                time.sleep(0.01)
            response = small.post(song)
            assert_problem(response, 429, "overloaded")
            assert int(response.headers["retry-after"]) > 0
        wait_for_outcome(small, "client_gone", 1)
        assert small.post(song).status_code == 200


def test_predictions_that_would_wait_too_long_are_refused(tmp_path: Path, song: bytes) -> None:
    with running_server(tmp_path, tracks_at_once=1, max_wait_s=0.0001) as small:
        # The wait is estimated from the tracks that came before.
        assert small.post(song).status_code == 200
        with start_upload(small, content_length=len(song)) as connection:
            connection.sendall(song[:1000])
            while "in_progress 1.0" not in small.get("/metrics").text:
                time.sleep(0.01)
            response = small.post(song)
            assert_problem(response, 429, "overloaded")
            assert "The wait would be longer than the limit" in response.json()["detail"]
            assert int(response.headers["retry-after"]) > 0
        wait_for_outcome(small, "client_gone", 1)
        assert small.post(song).status_code == 200


def test_every_outcome_is_counted_and_every_log_line_has_the_id_of_its_request(strict: Server, song: bytes) -> None:
    before = {code: count_outcomes(strict, code) for code in ("ok", "invalid_parameter", "unsupported_media")}
    assert strict.post(song).status_code == 200
    strict.post(song, top_k=0)
    strict.post(song, top_k=99)
    refused = strict.post(b"not a song" * 1000)
    after = {code: count_outcomes(strict, code) - count for code, count in before.items()}
    assert after == {"ok": 1, "invalid_parameter": 2, "unsupported_media": 1}
    lines = [json.loads(line) for line in strict.log.read_text().splitlines()]
    (reason,) = [
        line
        for line in lines
        if line["request_id"] == refused.headers["x-request-id"] and "Invalid data" in line["message"]
    ]
    assert reason["logger"].startswith("wholetrack.")
