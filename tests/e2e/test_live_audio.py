"""``/v1/live``: audio that is predicted while it is sent, and messages that are not as they should be."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

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
from tests.e2e.requests import assert_problem, count_outcomes, wait_for_outcome
from tests.harness.recordings import wav_bytes
from tests.harness.server import Server
from tests.harness.waiting import until
from wholetrack.decoding.ffmpeg import Ffmpeg

pytestmark = pytest.mark.timing

RATE = 22050
_ALICE, _BOB = "alices-key-of-enough-characters", "bobs-key-of-enough-characters"


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
