"""Tags, embedding, taxonomies and parent genres, over HTTP, from a bundle with two inputs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.app_client import AppClient, app_client
from tests.harness.bundles import EMBEDDING_LENGTH, LABELS, TAGS, run_network, write_two_inputs
from tests.harness.paths import PROJECT
from tests.harness.recordings import wav_bytes
from wholetrack import startup
from wholetrack.api.admission import Admission
from wholetrack.api.app import create_app
from wholetrack.cli.verify import compare
from wholetrack.contracts import Detail, TrackPrediction
from wholetrack.pipeline import Pipeline
from wholetrack.settings import Settings
from wholetrack.startup import build_pipeline

RATE = 22050


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_two_inputs(folder)
    return folder


@pytest.fixture(scope="module")
def app(models: Path) -> Iterator[tuple[Pipeline, AppClient]]:
    settings = Settings(device="cpu", default_model="twin", cache_mb=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(startup, "BUILT_IN_MODELS", models)
        pipeline = build_pipeline(settings)
    with app_client(create_app(pipeline, settings, Admission(4))) as client:
        yield pipeline, client


@pytest.fixture(scope="module")
def song(tune: NDArray[np.float32]) -> bytes:
    """Sound, six seconds of silence, and sound."""
    return wav_bytes(np.concatenate((tune[: 6 * RATE], np.zeros(6 * RATE, dtype=np.float32), tune[: 3 * RATE])), RATE)


def post(client: AppClient, song: bytes, **parameters: object) -> httpx.Response:
    return client.post("/v1/predict", content=song, **parameters)


@pytest.fixture(scope="module")
def outputs(
    models: Path, app: tuple[Pipeline, AppClient], song: bytes, tmp_path_factory: pytest.TempPathFactory
) -> list[NDArray[np.float32]]:
    """What onnxruntime and numpy make of the windows, without the engine."""
    pipeline, _ = app
    path = tmp_path_factory.mktemp("song") / "song.wav"
    path.write_bytes(song)
    fine, coarse = pipeline.normalised_windows(path, max_duration_s=60).arrays
    return run_network((models / "twin/1/model.onnx").read_bytes(), {"fine": fine, "coarse": coarse})


def test_tables_do_not_keep_outputs_that_they_do_not_show(
    app: tuple[Pipeline, AppClient], song: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, client = app
    asked: list[tuple[Detail | None, Detail | None]] = []
    predict = pipeline.predict

    def recorded(path: Path, **options: Any) -> TrackPrediction:
        asked.append((options["tags"], options["embedding"]))
        return predict(path, **options)

    monkeypatch.setattr(pipeline, "predict", recorded)
    # Bytes behind the end of the audio make these other recordings.
    for number, name in enumerate(("csv", "jsonl", "svg", "json")):
        recording = song + bytes([number])
        post(client, recording, format=name, tags="windows", embedding="windows").raise_for_status()
    assert asked == [(None, Detail.NONE)] * 3 + [(Detail.WINDOWS, Detail.WINDOWS)]


def test_requests_that_mean_the_same_share_a_cached_prediction(app: tuple[Pipeline, AppClient], song: bytes) -> None:
    _, client = app
    # Bytes behind the end of the audio make this another recording.
    recording = song + b"LIST"
    post(client, recording)
    window_s, hop_s = (client.get("/v1/models/twin").json()["card"]["windows"][name] for name in ("window_s", "hop_s"))
    same: list[dict[str, object]] = [
        {"tags": "track"},
        {"embedding": "none"},
        {"hop_s": hop_s},
        {"hop_s": f"{hop_s:.3f}"},
        {"model": "twin"},
        {"model": "twin@1"},
        {"top_k": 1},
        {"windows": "none"},
        {"format": "csv"},
    ]
    for parameters in same:
        response = post(client, recording, **parameters)
        assert "decode;dur=0.0," in response.headers["Server-Timing"], parameters
    others = ({"tags": "none"}, {"embedding": "track"}, {"hop_s": window_s}, {"taxonomy": "coarse"})
    for other in others:
        response = post(client, recording, **other)
        assert response.status_code == 200, response.text
        assert "decode;dur=0.0," not in response.headers["Server-Timing"], other


def test_tags_are_the_calibrated_mean_over_windows_with_sound(
    app: tuple[Pipeline, AppClient], song: bytes, outputs: list[NDArray[np.float32]]
) -> None:
    body = post(app[1], song).json()
    silent = body["windows"]["silent"]
    assert silent
    audible = np.delete(outputs[1], silent, axis=0)
    mean = audible.mean(axis=0, dtype=np.float64)
    logit = np.log(mean / (1 - mean))
    probabilities = {"voice": 1 / (1 + np.exp(-(2 * logit[0] - 0.5))), "calm": mean[1], "latin": mean[2]}
    assert set(body["tags"]) == {"track"}
    assert {entry["tag"]: entry["probability"] for entry in body["tags"]["track"]} == pytest.approx(
        probabilities, abs=2e-6
    )
    assert {entry["tag"]: entry["kind"] for entry in body["tags"]["track"]} == {
        "voice": "voice",
        "calm": "mood",
        "latin": "genre",
    }
    assert [entry["tag"] for entry in body["tags"]["track"] if entry.get("unverified")] == ["latin"]
    assert [(entry["tag"], entry["parent"]) for entry in body["tags"]["track"] if "parent" in entry] == [
        ("latin", "jazz")
    ]
    ordered = [entry["probability"] for entry in body["tags"]["track"]]
    assert ordered == sorted(ordered, reverse=True)
    assert "embedding" not in body


def test_tags_of_windows(app: tuple[Pipeline, AppClient], song: bytes, outputs: list[NDArray[np.float32]]) -> None:
    body = post(app[1], song, tags="windows").json()
    tags, windows = body["tags"], body["windows"]
    assert tags["labels"] == list(TAGS)
    assert tags["start_s"] == windows["start_s"]
    assert [i for i, row in enumerate(tags["probabilities"]) if row is None] == windows["silent"]
    logits = np.log(outputs[1].astype("f8") / (1 - outputs[1].astype("f8")))
    assert tags["probabilities"][0][0] == pytest.approx(1 / (1 + np.exp(-(2 * logits[0, 0] - 0.5))), abs=1e-4)
    assert tags["probabilities"][-1][1:] == pytest.approx(outputs[1][-1, 1:].tolist(), abs=1e-4)
    assert tags["track"] == post(app[1], song, tags="track").json()["tags"]["track"]
    assert "tags" not in post(app[1], song, tags="none").json()


def test_embeddings_have_unit_length(
    app: tuple[Pipeline, AppClient], song: bytes, outputs: list[NDArray[np.float32]]
) -> None:
    body = post(app[1], song, embedding="windows").json()
    embedding, silent = body["embedding"], body["windows"]["silent"]
    assert embedding["length"] == EMBEDDING_LENGTH == len(embedding["track"])
    assert [i for i, row in enumerate(embedding["windows"]) if row is None] == silent
    np.testing.assert_allclose(embedding["windows"][0], outputs[2][0], atol=1e-6)
    mean = np.delete(outputs[2], silent, axis=0).mean(axis=0)
    np.testing.assert_allclose(embedding["track"], mean / np.linalg.norm(mean), atol=1e-6)
    assert embedding["start_s"] == body["windows"]["start_s"]
    track = post(app[1], song, embedding="track").json()["embedding"]
    assert set(track) == {"length", "track"}
    np.testing.assert_allclose(track["track"], embedding["track"], atol=2e-7)


def test_scores_are_those_of_the_network_and_genres_have_parents(
    app: tuple[Pipeline, AppClient], song: bytes, outputs: list[NDArray[np.float32]]
) -> None:
    body = post(app[1], song, top_k=4).json()
    audible = [i for i in range(len(outputs[0])) if i not in body["windows"]["silent"]]
    found = np.array(body["windows"]["probabilities"])[audible]
    np.testing.assert_allclose(found, outputs[0][audible], atol=6e-5)
    assert body["model"]["taxonomy"] is None
    for ranking in ("summed_score", "majority_vote"):
        parents = {entry["genre"]: entry["parent"] for entry in body["prediction"][ranking]["top_k"]}
        assert parents == dict.fromkeys(LABELS) | {"house": "electronic"}


def test_a_taxonomy_sums_the_probabilities_of_its_labels(
    app: tuple[Pipeline, AppClient], song: bytes, outputs: list[NDArray[np.float32]]
) -> None:
    labelled = post(app[1], song).json()
    body = post(app[1], song, taxonomy="coarse").json()
    assert body["model"]["taxonomy"] == "coarse"
    assert body["model"]["labels"] == ["dance", "guitars"]
    rows, silent = outputs[0], labelled["windows"]["silent"]
    sums = np.stack([rows[:, 1] + rows[:, 2], rows[:, 0]], axis=1)
    shares = sums / sums.sum(axis=1, keepdims=True)
    shares[silent] = 0.5
    np.testing.assert_allclose(body["windows"]["probabilities"], shares, atol=6e-5)
    (first, second) = body["prediction"]["summed_score"]["top_k"]
    assert first["share"] + second["share"] == pytest.approx(1)
    assert "parent" not in first
    assert 0 < body["prediction"]["confidence"] <= 1
    assert {section["genre"] for section in body["sections"]} <= {"dance", "guitars"}
    assert body["tags"] == labelled["tags"]


def test_a_silent_track_has_neither_tags_nor_a_vector(app: tuple[Pipeline, AppClient]) -> None:
    silence = wav_bytes(np.zeros(5 * RATE, dtype=np.float32), RATE)
    body = post(app[1], silence, tags="windows", embedding="windows", taxonomy="coarse").json()
    assert body["tags"]["track"] == []
    assert body["embedding"]["track"] is None
    assert body["embedding"]["windows"] == [None] * 3
    assert body["prediction"]["summed_score"]["genre"] is None
    assert body["prediction"]["confidence"] == 0


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({"taxonomy": "gtzan"}, "taxonomy: twin has only coarse; without this parameter, the genres are"),
        ({"taxonomy": "coarse", "top_k": 3}, "top_k: twin has 2 genres, so top_k must be from 1 to 2"),
        ({"tags": "all"}, "tags: input should be 'none', 'track' or 'windows'"),
        ({"embedding": "yes"}, "embedding: input should be 'none', 'track' or 'windows'"),
    ],
)
def test_parameters_that_the_model_does_not_support(
    app: tuple[Pipeline, AppClient], song: bytes, parameters: dict[str, object], complaint: str
) -> None:
    response = post(app[1], song, **parameters)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_parameter")
    assert response.json()["detail"].startswith(complaint)


def test_the_card_is_model_json(app: tuple[Pipeline, AppClient]) -> None:
    shown = app[1].get("/v1/models/twin").json()
    assert shown["card"]["schema_version"] == 2
    assert [entry["name"] for entry in shown["card"]["inputs"]] == ["fine", "coarse"]


def test_the_reference_implementation_agrees(
    app: tuple[Pipeline, AppClient], tune: NDArray[np.float32], tmp_path: Path
) -> None:
    (tmp_path / "song.wav").write_bytes(wav_bytes(tune[:150_000], RATE))
    comparison = compare(app[0], tmp_path / "song.wav", model="twin", max_duration_s=60)
    assert comparison.agrees, comparison.text()
    assert comparison.features < 1e-2


def test_the_command_line_prints_tags_and_embedding(models: Path, song: bytes, tmp_path: Path) -> None:
    (tmp_path / "song.wav").write_bytes(song)
    program = (
        "from pathlib import Path; import sys; from wholetrack import startup; from wholetrack.cli.app import main; "
        f"startup.BUILT_IN_MODELS = Path({str(models)!r}); main()"
    )
    command = [sys.executable, "-c", program, "predict", str(tmp_path / "song.wav"), "--format", "json"]
    environment = {"WHOLETRACK_DEVICE": "cpu", "WHOLETRACK_DEFAULT_MODEL": "twin", "PATH": "/usr/bin:/bin"}
    command += ["--embedding", "track", "--tags", "windows", "--taxonomy", "coarse"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=PROJECT, check=True)
    (line,) = ended.stdout.splitlines()
    body = json.loads(line)
    assert len(body["embedding"]["track"]) == EMBEDDING_LENGTH
    assert body["tags"]["labels"] == list(TAGS)
    assert body["prediction"]["summed_score"]["genre"] in {"dance", "guitars"}
