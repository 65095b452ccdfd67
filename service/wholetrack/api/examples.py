"""Example responses for the OpenAPI document: made up, short, and validated against the schemas by the tests."""

from __future__ import annotations

from typing import Any

from wholetrack.api.formats import ResponseFormat

_LABELS = [
    *("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock"),
    *("electronic", "ambient", "folk", "funk", "soul", "soundtrack"),
]

PREDICTION: dict[str, Any] = {
    "track": {
        "filename": "song.mp3",
        "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "bytes": 96_540,
        "codec": "mp3",
        "container": "mp3",
        "sample_rate_hz": 44100,
        "channels": 2,
        "duration_s": 4.0,
    },
    "model": {
        "name": "wholetrack-crnn",
        "version": "2",
        "device": "cpu",
        "precision": "float32",
        "window_s": 3.0,
        "hop_s": 1.0,
        "taxonomy": None,
        "labels": _LABELS,
    },
    "prediction": {
        "summed_score": {
            "genre": "jazz",
            "share": 0.71,
            "top_k": [{"genre": "jazz", "share": 0.71}, {"genre": "blues", "share": 0.21}],
        },
        "majority_vote": {
            "genre": "jazz",
            "share": 1.0,
            "top_k": [{"genre": "jazz", "share": 1.0, "windows": 2}, {"genre": "blues", "share": 0.0, "windows": 0}],
        },
        "agreement": True,
        "confidence": 0.71,
        "in_domain": True,
    },
    "sections": [{"start_s": 0.0, "end_s": 4.0, "genre": "jazz", "share": 0.71}],
    "windows": {
        "count": 2,
        "silent": [],
        "start_s": [0.0, 1.0],
        "genre": ["jazz", "jazz"],
        "probabilities": [
            [0.18, 0.02, 0.01, 0.01, 0.01, 0.74, 0.0, 0.01, 0.01, 0.01, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
            [0.24, 0.03, 0.01, 0.01, 0.01, 0.68, 0.0, 0.01, 0.0, 0.01, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        ],
    },
    "tags": {
        "track": [
            {"tag": "Jazz", "kind": "genre", "probability": 0.83},
            {"tag": "Singing", "kind": "voice", "probability": 0.07, "unverified": True},
        ],
    },
    "embedding": {"length": 4, "track": [0.5, -0.5, 0.1, 0.7]},
    "timing_ms": {
        "receive": 1.2,
        "decode": 21.5,
        "features": 4.1,
        "queue": 0.2,
        "inference": 6.3,
        "total": 31.8,
    },
    "warnings": [],
}

EXAMPLES_OF_FORMATS = {
    ResponseFormat.SSE: 'event: progress\ndata: {"decoded_s":12.0,"windows":9,"peaks":[0.31,0.42]}\n\n',
    ResponseFormat.NDJSON: '{"event":"progress","data":{"decoded_s":12.0,"windows":9,"peaks":[0.31,0.42]}}\n',
    ResponseFormat.JSONL: '{"kind": "section", "start_s": 0.0, "end_s": 4.0, "genre": "jazz", "share": 0.71}\n',
    ResponseFormat.CSV: "kind,start_s,end_s,genre,share,silent,p_blues,p_jazz\r\nsection,0.0,4.0,jazz,0.71,,,\r\n",
    ResponseFormat.SVG: '<svg xmlns="http://www.w3.org/2000/svg"></svg>\n',
}

_SUMMARY: dict[str, Any] = {
    "name": "wholetrack-crnn",
    "version": "2",
    "device": "cpu",
    "precision": "float32",
    "default": True,
    "available": True,
    "unavailable_reason": None,
    "labels": _LABELS,
    "summary": "CRNN with two convolutional towers, 3 s windows, 16 genres, tags and an embedding",
}

MODELS: dict[str, Any] = {"models": [_SUMMARY]}
MODEL: dict[str, Any] = {
    **_SUMMARY,
    "card": {
        "schema_version": 2,
        "name": "wholetrack-crnn",
        "version": "2",
        "labels": _LABELS,
        "windows": {"window_s": 3.0, "hop_s": 1.0, "last_window": "align_to_end"},
    },
}

INFERENCE_SERVER: dict[str, Any] = {"name": "wholetrack", "version": "0.2.0", "extensions": ["binary_tensor_data"]}
INFERENCE_MODEL: dict[str, Any] = {
    "name": "wholetrack-crnn-gtzan",
    "versions": ["1"],
    "platform": "onnxruntime_onnx",
    "inputs": [{"name": "windows", "datatype": "FP32", "shape": [-1, 39, 128]}],
    "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 10]}],
}
INFERENCE: dict[str, Any] = {
    "model_name": "wholetrack-crnn-gtzan",
    "model_version": "1",
    "outputs": [
        {
            "name": "logits",
            "datatype": "FP32",
            "shape": [1, 10],
            "data": [0.1, -2.0, 0.3, 1.2, -0.4, 3.1, -1.5, 0.2, 0.0, 0.6],
        }
    ],
}

SIMILARITY: dict[str, Any] = {
    "count": 2,
    "ranked": [{"id": "song-1", "similarity": 0.912345}, {"id": "song-2", "similarity": 0.123456}],
}

READY: dict[str, Any] = {
    "status": "ready",
    "models": {"wholetrack-crnn": "cpu"},
    "unavailable": {},
    "cpu_fallback": {},
    "sandbox": ["landlock", "limits", "seccomp"],
}
HEALTHY: dict[str, Any] = {"status": "ok"}
METRICS = """# HELP wholetrack_predictions_total Predictions by outcome: ok, or an error code.
# TYPE wholetrack_predictions_total counter
wholetrack_predictions_total{code="ok"} 42.0
"""


def success_response(example: object, *, media_type: str = "application/json") -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` argument for the success of a route, with an example."""
    return {200: {"content": {media_type: {"example": example}}}}
