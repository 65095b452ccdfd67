"""A tiny classifier that others might have trained, in several formats, and its card."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

LABELS = ("folk", "funk", "jazz", "punk", "soul")
FRAMES, MELS = 44, 24

CARD: dict[str, Any] = {
    "name": "theirs",
    "version": "2.1",
    "summary": "A classifier of somebody else",
    "labels": list(LABELS),
    "parents": {"funk": "soul"},
    "trained_on": {"data": "recordings of somebody else"},
    "audio": {"sample_rate": 22050},
    "windows": {"window_s": 2.0, "hop_s": 1.0, "last_window": "align_to_end"},
    "inputs": [
        {
            "name": "mel",
            "frames": FRAMES,
            "features": {
                "n_fft": 1024,
                "hop_length": 1000,
                "n_mels": MELS,
                "fmin": 20.0,
                "fmax": 10000.0,
                "floor": 1e-10,
                "normalisation": {"kind": "min_max", "range_db": 80.0, "low": 0.0, "high": 1.0},
            },
        }
    ],
    "outputs": {"scores": {"name": "genre", "yields": "probabilities"}},
}
TAG_OUTPUTS: dict[str, Any] = {
    "tags": {
        "name": "tag",
        "yields": "probabilities",
        "labels": [
            {"name": "calm", "kind": "mood"},
            *({"name": name, "kind": "genre"} for name in ("jazz", "soul", "folk")),
            {"name": "piano", "kind": "instrument"},
        ],
    }
}


def card_with(**changes: Any) -> dict[str, Any]:
    """Return the card with other values of some fields; None removes a field."""
    card = {**copy.deepcopy(CARD), **changes}
    return {name: value for name, value in card.items() if value is not None}


def write_card(folder: Path, card: dict[str, Any]) -> Path:
    """Write a card to a file."""
    path = folder / "card.json"
    path.write_text(json.dumps(card))
    return path


def weights() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the matrix and the bias that are applied to the mean over time of a window."""
    rng = np.random.default_rng(3)
    return rng.normal(0, 2, (MELS, len(LABELS))).astype(np.float32), rng.normal(0, 1, len(LABELS)).astype(np.float32)


def expected_logits(windows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return what the classifier makes of windows ``[n, FRAMES, MELS]``, with numpy alone."""
    matrix, bias = weights()
    return np.asarray(windows.astype(np.float64).mean(axis=1) @ matrix + bias)


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return probabilities that sum to 1."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def classifier(
    *,
    shape: tuple[int | str | None, ...] = ("N", FRAMES, MELS),
    time_axis: int = 1,
    last: str = "Softmax",
    output: str = "genre",
    squeeze: int | None = None,
    element: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """Return the classifier in ONNX.

    Args:
        shape: Declared shape of the input.
        time_axis: Axis of the frames, after the axis of size 1 was removed.
        last: Operator that turns logits into the output.
        output: Name of the output.
        squeeze: Axis of size 1, if there is one.
        element: Type of the input.
    """
    matrix, bias = weights()
    constants = [numpy_helper.from_array(matrix, "matrix"), numpy_helper.from_array(bias, "bias")]
    nodes, values = [], "mel"
    if element != TensorProto.FLOAT:
        nodes.append(helper.make_node("Cast", [values], ["single"], to=TensorProto.FLOAT))
        values = "single"
    if squeeze is not None:
        constants.append(numpy_helper.from_array(np.array([squeeze], dtype=np.int64), "axis"))
        nodes.append(helper.make_node("Squeeze", [values, "axis"], ["squeezed"]))
        values = "squeezed"
    nodes += [
        helper.make_node("ReduceMean", [values], ["mean"], axes=[time_axis], keepdims=0),
        helper.make_node("Gemm", ["mean", "matrix", "bias"], ["logits"]),
        helper.make_node(last, ["logits"], [output]),
    ]
    graph = helper.make_graph(
        nodes,
        "theirs",
        [helper.make_tensor_value_info("mel", element, shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", len(LABELS)])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
