"""Bundles for tests, and the arrays in them."""

from __future__ import annotations

import copy
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from wholetrack.contracts import Rows

LABELS = ("rock", "electronic", "house", "jazz")
TAGS = ("voice", "calm", "latin")
EMBEDDING_LENGTH = 8
COARSE, FINE = (39, 32), (150, 24)

CARD: dict[str, Any] = {
    "schema_version": 2,
    "name": "twin",
    "version": "1",
    "summary": "A made-up network with two inputs, for tests",
    "labels": list(LABELS),
    "parents": {"house": "electronic", "latin": "jazz"},
    "taxonomies": {
        "coarse": {
            "summary": "Two genres, without jazz.",
            "genres": {"dance": ["electronic", "house"], "guitars": ["rock"]},
        }
    },
    "unverified": ["latin"],
    "licence": "Apache-2.0",
    "trained_on": {},
    "metrics": {},
    "audio": {"sample_rate": 22050},
    "windows": {"window_s": 3.0, "hop_s": 1.0, "last_window": "align_to_end"},
    "inputs": [
        {
            "name": "fine",
            "shape": ["N", *FINE],
            "frames": FINE[0],
            "features": {
                "pre_emphasis": 0.97,
                "n_fft": 1024,
                "win_length": 800,
                "window": "hann_symmetric",
                "centred": "reflect",
                "frames_per_second": 50,
                "n_mels": FINE[1],
                "fmin": 0.0,
                "fmax": 11025.0,
                "mel_scale": "kaldi",
                "mel_norm": None,
                "log": "ln",
                "offset": 1e-5,
                "normalisation": {"kind": "affine", "add": 4.5, "divide_by": 5.0},
            },
        },
        {
            "name": "coarse",
            "shape": ["N", *COARSE],
            "frames": COARSE[0],
            "features": {
                "n_fft": 2048,
                "frames_per_second": 13,
                "n_mels": COARSE[1],
                "fmin": 0.0,
                "fmax": 11025.0,
                "floor": 1e-10,
                "normalisation": {"kind": "relative_to_max", "range_db": 60.0},
            },
        },
    ],
    "outputs": {
        "scores": {"name": "logits", "yields": "logits"},
        "tags": {
            "name": "tag_logits",
            "yields": "logits",
            "labels": [
                {"name": "voice", "kind": "voice", "calibration": {"slope": 2.0, "intercept": -0.5}},
                {"name": "calm", "kind": "mood"},
                {"name": "latin", "kind": "genre"},
            ],
        },
        "embedding": {"name": "vector", "length": EMBEDDING_LENGTH},
    },
    "opset": 17,
    "calibration": {"temperature": 0.7},
    "golden": {"tolerance": 1e-3},
}
"""The contract of :func:`write_two_inputs`, without hashes. The finer input comes first."""


def resized(rows: Rows, n_windows: int) -> Rows:
    """Repeat windows until there are as many as asked for."""
    return Rows(tuple(np.resize(array, (n_windows, *array.shape[1:])) for array in rows.arrays))


def write_two_inputs(
    models: Path,
    *,
    version: str = "1",
    tags: bool = True,
    change: Callable[[dict[str, Any]], None] = lambda _: None,
) -> Path:
    """Write a bundle with two inputs, tags and an embedding.

    Args:
        models: Folder of the models.
        version: Version of the bundle.
        tags: Whether it has tags.
        change: Changes the contract before it is written; the network and the golden file stay the same.

    Returns:
        Folder of the bundle.
    """
    card = copy.deepcopy(CARD) | {"version": version}
    content = two_input_network() if tags else two_input_network(outputs=("logits", "vector"))
    if not tags:
        del card["outputs"]["tags"], card["parents"]["latin"], card["unverified"]
    golden = _npz(golden_arrays(content))
    card["sha256"] = hashlib.sha256(content).hexdigest()
    card["golden"]["sha256"] = hashlib.sha256(golden).hexdigest()
    change(card)
    folder = models / "twin" / version
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(content)
    (folder / "golden.npz").write_bytes(golden)
    (folder / "model.json").write_text(json.dumps(card))
    return folder


def two_input_network(*, outputs: tuple[str, ...] = ("logits", "tag_logits", "vector")) -> bytes:
    """Return a network that applies a random matrix to the mean over time of both inputs."""
    rng = np.random.default_rng(7)
    sizes = {"logits": len(LABELS), "tag_logits": len(TAGS), "vector": EMBEDDING_LENGTH}
    nodes = [
        helper.make_node("ReduceMean", ["fine"], ["fine_mean"], axes=[1], keepdims=0),
        helper.make_node("ReduceMean", ["coarse"], ["coarse_mean"], axes=[1], keepdims=0),
        helper.make_node("Concat", ["fine_mean", "coarse_mean"], ["both"], axis=1),
    ]
    weights = []
    for name in outputs:
        matrix = rng.normal(0, 0.3, (FINE[1] + COARSE[1], sizes[name])).astype(np.float32)
        weights.append(numpy_helper.from_array(matrix, f"{name}_weights"))
        nodes.append(helper.make_node("MatMul", ["both", f"{name}_weights"], [name]))
    graph = helper.make_graph(
        nodes,
        "twin",
        [_float("fine", FINE), _float("coarse", COARSE)],
        [_float(name, (sizes[name],)) for name in outputs],
        initializer=weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _float(name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape])


def golden_arrays(network: bytes) -> dict[str, NDArray[np.float32]]:
    """Return inputs of :func:`two_input_network` and what the service must make of its outputs."""
    rng = np.random.default_rng(1)
    inputs = {"fine": rng.normal(0, 1, (3, *FINE)), "coarse": rng.random((3, *COARSE))}
    feed = {name: array.astype(np.float32) for name, array in inputs.items()}
    outputs = run_network(network, feed)
    names = ("probabilities", "tags", "embedding") if len(outputs) == 3 else ("probabilities", "embedding")
    return {
        "windows.fine": feed["fine"],
        "windows.coarse": feed["coarse"],
        **dict(zip(names, outputs, strict=True)),
    }


def run_network(network: bytes, feed: dict[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """Return probabilities of the labels and the tags, if any, and vectors of unit length, without the service."""
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    logits, *tags, vectors = (np.asarray(output, dtype=np.float64) for output in session.run(None, feed))
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    found = (
        powers / powers.sum(axis=1, keepdims=True),
        *(1 / (1 + np.exp(-array)) for array in tags),
        vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
    )
    return [array.astype(np.float32) for array in found]


def _npz(arrays: dict[str, NDArray[np.float32]]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


HEAD_LABELS = ("morning", "evening", "latin")


def write_head(
    models: Path,
    base: Path,
    *,
    name: str = "moods",
    inputs: tuple[str, ...] = ("embedding",),
    weights: NDArray[np.float32] | None = None,
    change: Callable[[dict[str, Any]], None] = lambda _: None,
) -> Path:
    """Write the bundle of a head with random weights.

    Args:
        models: Folder of the models.
        base: Folder of the bundle whose network it uses.
        name: Name of the head.
        inputs: Outputs of the network that it uses.
        weights: ``[n, length]``; None for random ones that fit.
        change: Changes the contract before it is written.

    Returns:
        Folder of the bundle.
    """
    rng = np.random.default_rng(3)
    if weights is None:
        length = sum({"embedding": EMBEDDING_LENGTH, "tags": len(TAGS)}[kind] for kind in inputs)
        weights = rng.normal(0, 3, (len(HEAD_LABELS), length)).astype(np.float32)
    content = _npz({"weights": weights, "bias": rng.normal(0, 1, len(weights)).astype(np.float32)})
    network = json.loads((base / "model.json").read_text())
    card: dict[str, Any] = {
        "schema_version": 2,
        "name": name,
        "version": "1",
        "summary": "A made-up head, for tests",
        "labels": list(HEAD_LABELS),
        "licence": "Apache-2.0",
        "trained_on": {},
        "metrics": {},
        "calibration": {"temperature": 1.3},
        "head_of": {key: network[key] for key in ("name", "version", "sha256")},
        "head": {"sha256": hashlib.sha256(content).hexdigest()},
    }
    # Without the field, a head uses the embedding alone.
    if inputs != ("embedding",):
        card["head"]["inputs"] = list(inputs)
    change(card)
    folder = models / name / "1"
    folder.mkdir(parents=True)
    (folder / "head.npz").write_bytes(content)
    (folder / "model.json").write_text(json.dumps(card))
    return folder
