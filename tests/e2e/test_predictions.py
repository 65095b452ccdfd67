"""Predictions of real recordings in every accepted format, over HTTP."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.recordings import LOSSLESS, LOSSY, Kind, Recorder, make_long_recording
from tests.harness.server import Server, running_server

FULL = {
    "lets-go-fishin.ogg": 132.989,
    "sugar-plum-fairy.ogg": 119.876,
    "vibe-ace.ogg": 61.459,
    "fantasma.mp3": 166.014,
    "on-the-run.ogg": 288.289,
    "hungarian-dance-5.ogg": 45.845,
}

# Three recordings have every format once. `make long` converts the others as well.
RECORDINGS = [pytest.param(name, marks=() if rank < 3 else pytest.mark.long) for rank, name in enumerate(FULL)]

N_GENRES = 16

# Probabilities have four decimals.
_ROUNDED = 6e-5

pytestmark = [pytest.mark.timing, pytest.mark.data]


def probabilities(body: dict[str, Any]) -> NDArray[np.float64]:
    return np.array(body["windows"]["probabilities"])


def check(body: dict[str, Any]) -> None:
    """Check what must hold for every prediction."""
    labels, windows, prediction = body["model"]["labels"], body["windows"], body["prediction"]
    rows = probabilities(body)
    assert rows.shape == (windows["count"], len(labels)) == (len(windows["start_s"]), N_GENRES)
    assert ((rows >= 0) & (rows <= 1)).all()
    np.testing.assert_allclose(rows.sum(axis=1), 1.0, atol=len(labels) * _ROUNDED)
    leading = np.array([labels.index(genre) for genre in windows["genre"]])
    np.testing.assert_allclose(rows[np.arange(len(rows)), leading], rows.max(axis=1), atol=_ROUNDED)
    audible = np.ones(len(rows), dtype=bool)
    audible[windows["silent"]] = False
    shares = rows[audible].sum(axis=0) / audible.sum()
    votes = np.bincount(leading[audible], minlength=N_GENRES)
    summed, voted = prediction["summed_score"], prediction["majority_vote"]
    assert summed["genre"] == summed["top_k"][0]["genre"] == labels[shares.argmax()]
    assert summed["share"] == pytest.approx(shares.max(), abs=_ROUNDED)
    for entry in voted["top_k"]:
        assert entry["windows"] == votes[labels.index(entry["genre"])]
        assert entry["share"] == pytest.approx(entry["windows"] / audible.sum(), abs=1e-6)
    assert len(summed["top_k"]) == len(voted["top_k"])
    assert prediction["agreement"] == (summed["genre"] == voted["genre"])
    assert 0 <= prediction["confidence"] <= 1
    ends = [section["end_s"] for section in body["sections"]]
    assert [section["start_s"] for section in body["sections"]][1:] == ends[:-1] or windows["silent"]
    assert ends[-1] <= body["track"]["duration_s"] + 0.001
    assert set(body["timing_ms"]) == {"receive", "decode", "features", "queue", "inference", "total"}


@pytest.mark.parametrize(("name", "seconds"), FULL.items())
def test_whole_recordings_are_predicted(server: Server, music: Path, name: str, seconds: float) -> None:
    recording = music / "audio" / "full" / name
    response = server.post(recording, top_k=N_GENRES)
    assert response.status_code == 200, response.text
    body = response.json()
    check(body)
    track = body["track"]
    assert track["filename"] == name
    assert track["bytes"] == recording.stat().st_size
    assert track["sha256"] == hashlib.sha256(recording.read_bytes()).hexdigest()
    assert (track["sample_rate_hz"], track["channels"]) == (44100, 2)
    assert track["duration_s"] == pytest.approx(seconds, abs=0.01)
    assert body["model"]["device"] == "cpu"
    assert body["windows"]["count"] in (int(seconds - 3) + 1, int(seconds - 3) + 2)
    for ranking in ("summed_score", "majority_vote"):
        assert sum(entry["share"] for entry in body["prediction"][ranking]["top_k"]) == pytest.approx(1.0, abs=1e-5)


def test_lets_go_fishin_has_130_windows_and_one_aligned_to_its_end(server: Server, music: Path) -> None:
    body = server.post(music / "audio/full/lets-go-fishin.ogg").json()
    assert body["windows"]["start_s"][:130] == [float(k) for k in range(130)]
    (last,) = body["windows"]["start_s"][130:]
    assert body["track"]["duration_s"] - 3 - 1 / 13 < last <= body["track"]["duration_s"] - 3


@pytest.mark.parametrize("name", RECORDINGS)
def test_every_lossless_format_gives_the_same_prediction(
    server: Server, recorder: Recorder, music: Path, tmp_path: Path, name: str
) -> None:
    codec = "mp3" if name.endswith("mp3") else "vorbis"
    segment = recorder.load(music / "audio" / "full" / name, codec)
    bodies = _post_converted(server, recorder, segment, [LOSSLESS[0], *_kinds_for(name, LOSSLESS[1:])], tmp_path)
    for kind, body in bodies.items():
        check(body)
        assert _warnings(body) == [], kind
        np.testing.assert_allclose(probabilities(body), probabilities(bodies[LOSSLESS[0]]), atol=1e-3)


@pytest.mark.parametrize("name", RECORDINGS)
def test_every_lossy_format_gives_a_similar_prediction(
    server: Server, recorder: Recorder, music: Path, tmp_path: Path, name: str
) -> None:
    codec = "mp3" if name.endswith("mp3") else "vorbis"
    original = server.post(music / "audio" / "full" / name, top_k=N_GENRES).json()
    shares = _shares(original)
    segment = recorder.load(music / "audio" / "full" / name, codec)
    for kind, body in _post_converted(server, recorder, segment, _kinds_for(name, LOSSY), tmp_path).items():
        check(body)
        assert _warnings(body) == [], kind
        assert body["track"]["duration_s"] == pytest.approx(FULL[name], abs=0.2)
        converted = _shares(body)
        assert sum(abs(converted[genre] - share) for genre, share in shares.items()) / 2 < 0.25, kind


def _kinds_for(name: str, kinds: Sequence[Kind]) -> Sequence[Kind]:
    """Return a third of the kinds, so that each one is tested with two of the six recordings."""
    return kinds[list(FULL).index(name) % 3 :: 3]


def _warnings(body: dict[str, Any]) -> list[str]:
    """Return the codes of all warnings about the file; whether the model knows such music is another question."""
    return [warning["code"] for warning in body["warnings"] if warning["code"] != "out_of_domain"]


def _shares(body: dict[str, Any]) -> dict[str, float]:
    return {entry["genre"]: entry["share"] for entry in body["prediction"]["summed_score"]["top_k"]}


def _post_converted(
    server: Server, recorder: Recorder, segment: Any, kinds: Sequence[Kind], folder: Path
) -> dict[Kind, dict[str, Any]]:
    bodies = {}
    for kind in kinds:
        recording = recorder.convert(segment, kind, folder / f"converted.{kind.suffix}")
        response = server.post(recording, top_k=N_GENRES)
        assert response.status_code == 200, (kind, response.text)
        bodies[kind] = response.json()
        recording.unlink()
    return bodies


def test_concurrent_requests_do_not_change_predictions(server: Server, music: Path) -> None:
    recordings = [music / "audio" / "full" / name for name in FULL]
    alone = [probabilities(server.post(recording).json()) for recording in recordings]
    eight = [*recordings, recordings[0], recordings[1]]
    with ThreadPoolExecutor(8) as clients:
        together = list(clients.map(lambda recording: probabilities(server.post(recording).json()), eight))
    for expected, found in zip([*alone, alone[0], alone[1]], together, strict=True):
        np.testing.assert_allclose(found, expected, atol=2 * _ROUNDED)


def test_a_raw_body_gives_the_same_prediction_as_a_form(server: Server, music: Path) -> None:
    recording = music / "audio/full/vibe-ace.ogg"
    form = server.post(recording).json()
    raw = httpx.post(f"{server.url}/v1/predict", content=recording.read_bytes(), timeout=60).json()
    assert raw["track"] == {**form["track"], "filename": None}
    assert raw["prediction"] == form["prediction"]
    assert raw["windows"] == form["windows"]


def test_parameters_change_the_detail_and_the_hop(server: Server, music: Path) -> None:
    recording = music / "audio/full/vibe-ace.ogg"
    none = server.post(recording, windows="none", top_k=1).json()
    assert set(none["windows"]) == {"count", "silent"}
    assert len(none["prediction"]["summed_score"]["top_k"]) == 1
    top = server.post(recording, windows="top").json()
    assert set(top["windows"]) == {"count", "silent", "start_s", "genre"}
    sparse = server.post(recording, hop_s=3).json()
    assert sparse["model"]["hop_s"] == 3.0
    assert sparse["windows"]["start_s"][:4] == [0.0, 3.0, 6.0, 9.0]


def test_a_health_probe_does_not_wait_for_four_predictions_in_progress(server: Server, music: Path) -> None:
    """The event loop is not blocked: the slowest probe takes a fraction of the fastest prediction."""
    recording = music / "audio/full/on-the-run.ogg"
    waits = []
    with ThreadPoolExecutor(4) as clients, httpx.Client() as client:
        began = time.monotonic()
        posts = [clients.submit(server.post, recording, windows="none") for _ in range(4)]
        while not any(post.done() for post in posts):
            probed = time.monotonic()
            assert client.get(f"{server.url}/healthz").status_code == 200
            waits.append(time.monotonic() - probed)
        shortest = time.monotonic() - began
        assert all(post.result().status_code == 200 for post in posts)
    assert len(waits) > 10
    assert max(waits) < shortest / 4


def test_the_total_time_is_what_the_client_measures(server: Server, music: Path) -> None:
    """It includes the wait for a slot: with more requests than slots, the slowest one waits for a part of its total."""
    recording = music / "audio/full/lets-go-fishin.ogg"

    def post(_: int) -> tuple[float, dict[str, float]]:
        began = time.monotonic()
        body = server.post(recording, windows="none").json()
        return (time.monotonic() - began) * 1e3, body["timing_ms"]

    with ThreadPoolExecutor(6) as clients:
        slowest, timing = max(clients.map(post, range(6)), key=lambda measured: measured[0])
    assert 0.7 * slowest < timing["total"] <= slowest
    assert timing["queue"] > timing["total"] / 4


def test_memory_does_not_grow_with_the_length_of_a_recording(music: Path, tmp_path: Path) -> None:
    song = music / "audio/full/vibe-ace.ogg"
    peaks = []
    for minutes in (3, 60):
        recording = tmp_path / f"{minutes}.mp3"
        make_long_recording(song, recording, minutes)
        folder = tmp_path / str(minutes)
        folder.mkdir()
        with running_server(folder) as fresh:
            body = fresh.post(recording).json()
            assert body["track"]["duration_s"] == pytest.approx(60 * minutes, rel=0.01)
            peaks.append(fresh.peak_bytes())
    assert peaks[1] - peaks[0] < 64 << 20
