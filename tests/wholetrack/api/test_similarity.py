"""``POST /v1/similarity``: ranking embeddings that the client sends."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from tests.harness.app_client import AppClient, app_client
from wholetrack.aggregation.similarity import most_similar
from wholetrack.api.admission import Admission
from wholetrack.api.app import create_app
from wholetrack.pipeline import Pipeline
from wholetrack.settings import Settings


@pytest.fixture(scope="module")
def client(pipeline: Pipeline) -> Iterator[AppClient]:
    with pytest.MonkeyPatch.context() as patch:
        # Other tests use the pipeline after the application has been shut down.
        patch.setattr(pipeline, "close", lambda: None)
        with app_client(create_app(pipeline, Settings(device="cpu"), Admission(4))) as started:
            yield started


def post(client: AppClient, body: object) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post("/v1/similarity", content=content)


def items(*embeddings: list[float]) -> list[dict[str, object]]:
    return [{"id": f"song-{i}", "embedding": embedding} for i, embedding in enumerate(embeddings)]


def test_embeddings_are_ranked_by_the_cosine(client: AppClient) -> None:
    body = {"query": [3, 4], "items": items([0, 1], [6, 8], [4, -3], [-3, -4], [0, 2], [0, 0])}
    found = post(client, body)
    assert found.status_code == 200, found.text
    assert found.json() == {
        "count": 6,
        "ranked": [
            {"id": "song-1", "similarity": 1.0},
            {"id": "song-0", "similarity": 0.8},
            {"id": "song-4", "similarity": 0.8},
            {"id": "song-2", "similarity": 0.0},
            {"id": "song-5", "similarity": 0.0},
            {"id": "song-3", "similarity": -1.0},
        ],
    }
    assert len(post(client, body | {"top_k": 2}).json()["ranked"]) == 2


@pytest.mark.parametrize(
    ("body", "code", "complaint"),
    [
        (b"{", "malformed_request", "Send a JSON object with the fields query and items."),
        (b"[]", "invalid_parameter", "body: input should be an object."),
        ({"query": [1, 0]}, "invalid_parameter", "items: field required."),
        ({"query": [1, 0], "items": []}, "invalid_parameter", "items: list should have at least 1 item"),
        (
            {"query": [0, 0], "items": items([1, 0])},
            "invalid_parameter",
            "query: an embedding of zeros has no direction.",
        ),
        (
            {"query": [1, 0], "items": items([1, 0], [1, 0, 0])},
            "invalid_parameter",
            "items.1.embedding: it has 3 numbers and the query 2; compare only embeddings of the same model.",
        ),
        ({"query": ["1", 0], "items": items([1, 0])}, "invalid_parameter", "query.0: input should be a valid number."),
        (b'{"query": [NaN, 0], "items": []}', "invalid_parameter", "query.0: input should be a finite number."),
        ({"query": [1e39, 0], "items": items([1, 0])}, "invalid_parameter", "query.0: input should be less than or"),
        ({"query": [1, 0], "items": items([-1e39, 0])}, "invalid_parameter", "items.0.embedding.0: input should be"),
        ({"query": [1, 0], "items": items([1, 0]), "k": 1}, "invalid_parameter", "k: extra inputs are not permitted."),
        ({"query": [1.0] * 4097, "items": items([1, 0])}, "invalid_parameter", "query: list should have at most 4096"),
        (
            {"query": [1, 0], "items": items([1, 0]), "top_k": 0},
            "invalid_parameter",
            "top_k: input should be greater than or equal to 1.",
        ),
        ({"query": [1, 0], "items": items(*[[1.0, 0.0]] * 10_001)}, "invalid_parameter", "items: list should have at"),
    ],
)
def test_the_response_says_what_is_wrong(client: AppClient, body: object, code: str, complaint: str) -> None:
    found = post(client, body)
    assert found.json()["code"] == code
    assert found.status_code == (400 if code == "malformed_request" else 422)
    assert found.json()["detail"].startswith(complaint)


def test_a_body_of_more_than_8_mib_is_refused(client: AppClient) -> None:
    found = post(client, b" " * ((8 << 20) + 1))
    assert (found.status_code, found.json()["code"]) == (413, "upload_too_large")


def test_the_ranking_agrees_with_numpy(rng: np.random.Generator) -> None:
    vectors = rng.normal(size=(200, 16)).astype(np.float32)
    query = rng.normal(size=16).astype(np.float32)
    cosines = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    found = most_similar(query, vectors, limit=5)
    assert [i for i, _ in found] == np.argsort(-cosines)[:5].tolist()
    np.testing.assert_allclose([cosine for _, cosine in found], np.sort(cosines)[::-1][:5], atol=1e-6)
