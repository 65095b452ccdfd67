"""A bundle with a graph for strips of windows, for tests."""

from __future__ import annotations

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

WINDOW, N_MELS, LABELS = 39, 32, ("rock", "jazz", "pop")
_TAPS, _CHANNELS = 5, 8
_STEPS = WINDOW - _TAPS + 1


def write_strip_bundle(
    models: Path,
    *,
    name: str = "strips",
    strips: bool = True,
    leaky: bool = False,
    change: Callable[[dict[str, Any]], None] = lambda _: None,
) -> Path:
    """Write a bundle whose network has one convolution over five frames.

    Args:
        models: Folder of the models.
        name: Name of the model.
        strips: Whether it has a graph for strips. The graph for single windows is the same in any case.
        leaky: Whether windows in a strip depend on a frame after them.
        change: Changes the contract before it is written.

    Returns:
        Folder of the bundle.
    """
    whole, strip = _network(in_strips=False), _network(in_strips=True, leaky=leaky)
    rng = np.random.default_rng(2)
    windows = rng.normal(0, 1, (5, WINDOW, N_MELS)).astype(np.float32)
    golden = io.BytesIO()
    np.savez(golden, windows=windows, probabilities=_probabilities(whole, windows))
    features = {
        "n_fft": 2048,
        "frames_per_second": 13,
        "n_mels": N_MELS,
        "fmin": 0.0,
        "fmax": 11025.0,
        "floor": 1e-10,
        "normalisation": {"kind": "affine", "add": 40.0, "divide_by": 30.0},
    }
    card: dict[str, Any] = {
        "schema_version": 2,
        "name": name,
        "version": "1",
        "summary": "A made-up network with a graph for strips, for tests",
        "labels": list(LABELS),
        "licence": "Apache-2.0",
        "trained_on": {},
        "metrics": {},
        "sha256": hashlib.sha256(whole).hexdigest(),
        "audio": {"sample_rate": 22050},
        "windows": {"window_s": 3.0, "hop_s": 1.0, "last_window": "align_to_end"},
        "inputs": [{"name": "windows", "shape": ["N", WINDOW, N_MELS], "frames": WINDOW, "features": features}],
        "outputs": {"scores": {"name": "logits", "yields": "logits"}},
        "opset": 17,
        "golden": {"sha256": hashlib.sha256(golden.getvalue()).hexdigest(), "tolerance": 1e-3},
    }
    if strips:
        card["strips"] = {"sha256": hashlib.sha256(strip).hexdigest(), "frames": "frames", "starts": "starts"}
    change(card)
    folder = models / name / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(whole)
    (folder / "model.strips.onnx").write_bytes(strip)
    (folder / "golden.npz").write_bytes(golden.getvalue())
    (folder / "model.json").write_text(json.dumps(card))
    return folder


def _network(*, in_strips: bool, leaky: bool = False) -> bytes:
    """Return the graph for single windows or for strips."""
    rng = np.random.default_rng(7)
    weights = {
        "kernel": rng.normal(0, 0.2, (_CHANNELS, 1, _TAPS, N_MELS)).astype(np.float32),
        "matrix": rng.normal(0, 0.1, (2 * _CHANNELS, len(LABELS))).astype(np.float32),
        "axis_3": np.array([3]),
        "axis_1": np.array([1]),
        "axes_01": np.array([0, 1]),
        "axes_03": np.array([0, 3]),
        "steps": np.arange(_STEPS + leaky),
    }
    node = helper.make_node
    if in_strips:
        nodes = [
            node("Unsqueeze", ["frames", "axes_01"], ["image"]),
            node("Conv", ["image", "kernel"], ["convolved"], pads=[0, 0, _TAPS - 1, 0]),
            node("Squeeze", ["convolved", "axes_03"], ["trunk"]),
            node("Transpose", ["trunk"], ["rows"], perm=[1, 0]),
            node("Unsqueeze", ["starts", "axis_1"], ["column"]),
            node("Add", ["column", "steps"], ["chosen"]),
            node("Gather", ["rows", "chosen"], ["sequence"], axis=0),
        ]
        inputs = [
            helper.make_tensor_value_info("frames", TensorProto.FLOAT, ["F", N_MELS]),
            helper.make_tensor_value_info("starts", TensorProto.INT64, ["N"]),
        ]
    else:
        nodes = [
            node("Unsqueeze", ["windows", "axis_1"], ["image"]),
            node("Conv", ["image", "kernel"], ["convolved"]),
            node("Squeeze", ["convolved", "axis_3"], ["trunk"]),
            node("Transpose", ["trunk"], ["sequence"], perm=[0, 2, 1]),
        ]
        inputs = [helper.make_tensor_value_info("windows", TensorProto.FLOAT, ["N", WINDOW, N_MELS])]
    nodes += [
        node("ReduceMean", ["sequence"], ["mean"], axes=[1], keepdims=0),
        node("ReduceMax", ["sequence"], ["largest"], axes=[1], keepdims=0),
        node("Concat", ["mean", "largest"], ["pooled"], axis=1),
        node("MatMul", ["pooled", "matrix"], ["logits"]),
    ]
    used = {name for one in nodes for name in one.input}
    graph = helper.make_graph(
        nodes,
        "strips",
        inputs,
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", len(LABELS)])],
        initializer=[numpy_helper.from_array(array, name) for name, array in weights.items() if name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _probabilities(network: bytes, windows: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    logits = np.asarray(session.run(None, {"windows": windows})[0])
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
