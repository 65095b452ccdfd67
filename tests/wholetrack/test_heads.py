"""Heads: models that share the network of another one."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.app_client import AppClient, app_client
from tests.harness.bundles import (
    EMBEDDING_LENGTH,
    HEAD_LABELS,
    LABELS,
    TAGS,
    run_network,
    write_head,
    write_two_inputs,
)
from tests.harness.recordings import wav_bytes
from tests.harness.waiting import until
from wholetrack import startup
from wholetrack.api.admission import Admission
from wholetrack.api.app import create_app
from wholetrack.cli.verify import compare
from wholetrack.contracts import Rows
from wholetrack.errors import StartupError
from wholetrack.inference.bundle import load_bundle, load_bundles
from wholetrack.inference.head import head_windows
from wholetrack.inference.session import Session
from wholetrack.pipeline import Pipeline
from wholetrack.settings import Settings
from wholetrack.startup import build_pipeline

RATE = 22050


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    base = write_two_inputs(folder)
    write_head(folder, base)
    write_head(folder, base, name="tagged", inputs=("tags", "embedding"))
    return folder


@pytest.fixture(scope="module")
def app(models: Path) -> Iterator[tuple[Pipeline, AppClient]]:
    settings = Settings(device="cpu", default_model="twin", cpu_workers=1)
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


def n_run(pipeline: Pipeline) -> tuple[int, int]:
    """Return how many batches and windows the network has classified."""
    batches = pipeline.model("twin").engine.counts().devices["cpu"].batches
    return batches.total(), sum(size * n for size, n in batches.items())


@pytest.fixture(scope="module")
def network_outputs(
    models: Path, app: tuple[Pipeline, AppClient], song: bytes, tmp_path_factory: pytest.TempPathFactory
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Embeddings of all windows of the song, and the logits of its tags, without the engine."""
    path = tmp_path_factory.mktemp("song") / "song.wav"
    path.write_bytes(song)
    fine, coarse = app[0].normalised_windows(path, model="moods", max_duration_s=60).arrays
    _, tags, vectors = run_network((models / "twin/1/model.onnx").read_bytes(), {"fine": fine, "coarse": coarse})
    return vectors, np.log(tags / (1 - tags))


def probabilities(head: Path, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the probabilities of a head for inputs of its network."""
    with np.load(head / "head.npz") as arrays:
        powers = np.exp((inputs @ arrays["weights"].T + arrays["bias"]).astype(np.float64))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def test_a_head_responds_like_any_other_model(
    models: Path,
    app: tuple[Pipeline, AppClient],
    song: bytes,
    network_outputs: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> None:
    client = app[1]
    expected = probabilities(models / "moods/1", network_outputs[0])

    own = post(client, song, model="moods", embedding="windows", tags="windows", top_k=3).json()
    base = post(client, song, embedding="windows", tags="windows").json()
    assert [own["embedding"]["windows"][i] for i in own["windows"]["silent"]] == [None] * len(own["windows"]["silent"])
    # The size of a batch may change the last digit.
    np.testing.assert_allclose(own["embedding"]["track"], base["embedding"]["track"], atol=1e-6)
    own_tags, base_tags = (np.array(body["tags"]["probabilities"][0]) for body in (own, base))
    np.testing.assert_allclose(own_tags, base_tags, atol=2e-4)
    assert own["windows"]["silent"] == base["windows"]["silent"]
    assert own.keys() == base.keys()
    assert own["prediction"].keys() == base["prediction"].keys()
    assert (own["model"]["name"], own["model"]["labels"]) == ("moods", list(HEAD_LABELS))
    audible = [i for i in range(len(expected)) if i not in own["windows"]["silent"]]
    np.testing.assert_allclose(np.array(own["windows"]["probabilities"])[audible], expected[audible], atol=6e-5)
    shares = {entry["genre"]: entry["share"] for entry in own["prediction"]["summed_score"]["top_k"]}
    mean = expected[audible].mean(axis=0)
    assert shares == pytest.approx(dict(zip(HEAD_LABELS, mean.tolist(), strict=True)), abs=1e-5)
    tempered = mean ** (1 / 1.3)
    assert own["prediction"]["confidence"] == pytest.approx(tempered.max() / tempered.sum(), abs=1e-5)
    assert own["prediction"]["in_domain"] is None
    assert {section["genre"] for section in own["sections"]} <= set(HEAD_LABELS)


@pytest.mark.parametrize("detail", ["none", "track", "windows"])
def test_a_head_uses_tags_that_were_not_requested(
    models: Path,
    app: tuple[Pipeline, AppClient],
    song: bytes,
    network_outputs: tuple[NDArray[np.float32], NDArray[np.float32]],
    detail: str,
) -> None:
    vectors, tag_logits = network_outputs
    expected = probabilities(models / "tagged/1", np.concatenate((tag_logits, vectors), axis=1))
    before = n_run(app[0])[1]
    body = post(app[1], song, model="tagged", tags=detail, embedding=detail).json()
    audible = [i for i in range(len(expected)) if i not in body["windows"]["silent"]]
    assert n_run(app[0])[1] - before == len(audible)
    found = np.array(body["windows"]["probabilities"])
    np.testing.assert_allclose(found[audible], expected[audible], atol=6e-5)
    # The tags matter: the embedding alone would give other probabilities.
    with np.load(models / "tagged/1/head.npz") as head:
        assert np.abs(head["weights"][:, : len(TAGS)]).max() > 1
    assert ("tags" in body and bool(body["tags"])) == (detail != "none")


def test_logits_of_extreme_probabilities_are_bounded() -> None:
    tags = np.array([[0.0, 1.0, 1e-30, 0.5, np.nextafter(np.float32(1), np.float32(0))]], dtype=np.float32)
    outputs = Rows.of(np.ones((1, 2), dtype=np.float32), tags, np.full((1, 3), 0.5, dtype=np.float32))
    found = head_windows(outputs, ("scores", "tags", "embedding"), ("embedding", "tags"))
    assert found.dtype == np.float32
    largest = np.log((1 - 1e-4) / 1e-4)
    expected = [[0.5, 0.5, 0.5, -largest, largest, -largest, 0.0, largest]]
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_the_windows_of_a_head_and_of_its_base_share_batches_of_one_session(
    app: tuple[Pipeline, AppClient], tune: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, client = app
    short, longer = wav_bytes(tune[: 5 * RATE], RATE), wav_bytes(np.tile(tune, 2), RATE)
    assert pipeline.model("moods").engine is pipeline.model("twin").engine
    run, entered, may_run = Session.run, threading.Semaphore(0), threading.Event()

    def gated(session: Session, windows: Rows) -> Rows:
        entered.release()
        assert may_run.wait(60)
        return run(session, windows)

    monkeypatch.setattr(Session, "run", gated)
    batches, windows = n_run(pipeline)
    with ThreadPoolExecutor(3) as threads:
        # The first track occupies both threads of the session until the windows of the other two are waiting.
        first = threads.submit(post, client, longer)
        engine = pipeline.model("twin").engine
        assert entered.acquire(timeout=60)
        assert entered.acquire(timeout=60)
        both = [threads.submit(post, client, short, model=name, embedding="track") for name in ("twin", "moods")]
        until(lambda: engine.counts().waiting >= 6)
        may_run.set()
        found = [future.result().json() for future in (first, *both)]
    assert [body["windows"]["count"] for body in found] == [18, 3, 3]
    np.testing.assert_allclose(found[1]["embedding"]["track"], found[2]["embedding"]["track"], atol=1e-6)
    assert [body["model"]["labels"] for body in found] == [list(LABELS), list(LABELS), list(HEAD_LABELS)]
    after = n_run(pipeline)
    assert after[1] - windows == 24
    assert after[0] - batches <= 3


def test_models_health_and_metrics(app: tuple[Pipeline, AppClient]) -> None:
    _, client = app
    shown = client.get("/v1/models/moods").json()
    assert shown["labels"] == list(HEAD_LABELS)
    assert shown["card"]["head_of"]["name"] == "twin"
    assert client.get("/readyz").json()["models"] == {"moods": "cpu", "tagged": "cpu", "twin": "cpu"}
    assert client.get("/v1/models/tagged").json()["card"]["head"]["inputs"] == ["tags", "embedding"]
    batches = [line for line in client.get("/metrics").text.splitlines() if line.startswith("wholetrack_batch_windows")]
    assert batches
    assert not any("moods" in line or "tagged" in line for line in batches)


@pytest.mark.parametrize("model", ["moods", "tagged"])
def test_live_events_have_the_scores_of_the_head(
    models: Path,
    app: tuple[Pipeline, AppClient],
    song: bytes,
    network_outputs: tuple[NDArray[np.float32], NDArray[np.float32]],
    model: str,
) -> None:
    vectors, tag_logits = network_outputs
    inputs = vectors if model == "moods" else np.concatenate((tag_logits, vectors), axis=1)
    expected = probabilities(models / model / "1", inputs)
    response = post(app[1], song, model=model, format="ndjson", tags="none")
    assert response.status_code == 200, response.text
    events = [json.loads(line) for line in response.text.splitlines()]
    (start,) = (event["data"] for event in events if event["event"] == "start")
    assert (start["model"]["name"], start["model"]["labels"]) == (model, list(HEAD_LABELS))
    parts = [event["data"] for event in events if event["event"] == "windows"]
    assert [part["first"] for part in parts] == np.cumsum([0, *(len(p["start_s"]) for p in parts)])[:-1].tolist()
    rows = np.array([row for part in parts for row in part["probabilities"]])
    genres = [genre for part in parts for genre in part["genre"]]
    assert len(rows) == len(genres) == len(expected)
    result = events[-1]["data"]
    assert events[-1]["event"] == "result"
    silent = set(result["windows"]["silent"])
    audible = [i for i in range(len(rows)) if i not in silent]
    assert 0 < len(audible) < len(rows)
    np.testing.assert_allclose(rows[audible], expected[audible], atol=6e-5)
    assert [genres[i] for i in audible] == [HEAD_LABELS[k] for k in expected[audible].argmax(axis=1)]
    assert all(genres[i] is None for i in silent)
    assert result["windows"]["genre"] == genres
    summed = {entry["genre"]: entry["share"] for entry in result["prediction"]["summed_score"]["top_k"]}
    mean = dict(zip(HEAD_LABELS, expected[audible].mean(axis=0).tolist(), strict=True))
    assert summed == pytest.approx(mean, abs=1e-5)


def test_the_reference_implementation_agrees(
    app: tuple[Pipeline, AppClient], tune: NDArray[np.float32], tmp_path: Path
) -> None:
    (tmp_path / "song.wav").write_bytes(wav_bytes(tune[:150_000], RATE))
    comparison = compare(app[0], tmp_path / "song.wav", model="moods", max_duration_s=60)
    assert comparison.agrees, comparison.text()
    assert comparison.genres[1] in HEAD_LABELS


def test_a_head_may_be_the_default(models: Path, tune: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "BUILT_IN_MODELS", models)
    settings = Settings(device="cpu", default_model="moods")
    with app_client(create_app(build_pipeline(settings), settings, Admission(4))) as client:
        body = post(client, wav_bytes(tune[: 4 * RATE], RATE)).json()
        assert body["model"]["labels"] == list(HEAD_LABELS)
        assert [model["name"] for model in client.get("/v1/models").json()["models"] if model["default"]] == ["moods"]


def test_an_older_version_is_loaded_if_a_head_needs_it(tmp_path: Path) -> None:
    write_head(tmp_path, write_two_inputs(tmp_path))
    write_two_inputs(tmp_path, version="2")
    loaded = load_bundles(tmp_path)
    assert loaded.keys() == {"twin", "twin@1", "moods"}
    assert loaded["moods"].base == "twin@1"
    assert loaded["moods"].onnx is loaded["twin@1"].onnx


def _set(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda card: card.update(fields)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            lambda card: card["head_of"].update(version="7"),
            r"uses the network of twin 7, which is not among the models ",
        ),
        (
            lambda card: card["head_of"].update(name="triplet"),
            r"triplet 1, which is not among the models found \(moods",
        ),
        (lambda card: card["head_of"].update(sha256="0"), "was fitted to another network of twin 1: fit it again"),
        (lambda card: card["head"].update(sha256="0"), "the SHA-256 of head.npz is"),
        (lambda card: card["head"].update(inputs=[]), "head.inputs: Tuple should have at least 1 item"),
        (lambda card: card["head"].update(inputs=["scores"]), "head.inputs.0: Input should be 'embedding' or 'tags'"),
        (lambda card: card["head"].update(inputs=["tags", "tags"]), "head: Value error, inputs must be distinct"),
        (_set(labels=["one"]), "labels: Tuple should have at least 2 items"),
        (_set(labels=["one", "two"]), "head.npz is for 3 genres, and model.json has 2 labels"),
        (_set(labels=["one", "two", "two"]), "labels must be distinct"),
        (_set(parents={"morning": "day"}), "parents: 'day', the parent of 'morning', is not one of the labels"),
        (_set(name="other"), "states a different name or version"),
        (_set(domain={"tag": "calmness", "least_probability": 0.5}), r"domain: 'calmness' is not one of the tags \(is"),
    ],
)
def test_a_head_that_does_not_fit(tmp_path: Path, change: Callable[[dict[str, Any]], None], complaint: str) -> None:
    write_head(tmp_path, write_two_inputs(tmp_path), change=change)
    with pytest.raises(StartupError, match=complaint):
        load_bundles(tmp_path)


@pytest.mark.parametrize(
    ("inputs", "yields"),
    [
        (("embedding",), r"8 of them, embedding \(8\)"),
        (("tags",), r"3 of them, tags \(3\)"),
        (("embedding", "tags"), r"11 of them, embedding \(8\) and tags \(3\)"),
    ],
)
def test_weights_for_inputs_of_another_length(tmp_path: Path, inputs: tuple[str, ...], yields: str) -> None:
    weights = np.zeros((3, EMBEDDING_LENGTH + 1), dtype=np.float32)
    write_head(tmp_path, write_two_inputs(tmp_path), inputs=inputs, weights=weights)
    complaint = (
        rf"head.npz has weights for 9 numbers per window, and twin 1 yields {yields}: fit the head again to that model"
    )
    with pytest.raises(StartupError, match=complaint):
        load_bundles(tmp_path)


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    weights = np.full((3, EMBEDDING_LENGTH), np.nan, dtype=np.float32)
    write_head(tmp_path, write_two_inputs(tmp_path), weights=weights)
    with pytest.raises(StartupError, match="weights that are not finite"):
        load_bundles(tmp_path)


def test_a_base_without_embedding(tmp_path: Path) -> None:
    base = write_two_inputs(tmp_path, change=lambda card: card["outputs"].pop("embedding"))
    write_head(tmp_path, base)
    with pytest.raises(StartupError, match="twin 1, whose network it uses, yields no embedding: fit the head to a"):
        load_bundles(tmp_path)


def test_a_base_without_tags(tmp_path: Path) -> None:
    write_head(tmp_path, write_two_inputs(tmp_path, tags=False), inputs=("embedding", "tags"))
    with pytest.raises(StartupError, match="twin 1, whose network it uses, yields no tags: fit the head to a model"):
        load_bundles(tmp_path)


def test_a_head_of_a_head(tmp_path: Path) -> None:
    base = write_two_inputs(tmp_path)
    head = write_head(tmp_path, base)
    write_head(
        tmp_path,
        base,
        name="nested",
        change=lambda card: card["head_of"].update(name="moods"),
    )
    with pytest.raises(StartupError, match="it uses moods, which is a head itself"):
        load_bundles(tmp_path)
    with pytest.raises(StartupError, match="it is a head, which has no network of its own"):
        load_bundle(head)
