"""A trained network as ONNX, in the form that every execution provider can keep whole on its device."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Iterator

import onnx
import torch
from onnxscript import optimizer
from torch import nn

from wholetrack_training.export.recurrent import RECURRENT_TRANSLATIONS, ExportError, with_single_nodes

INPUT = "windows"
OUTPUT = "logits"
OPSET = 18

# Sizes under which the optimiser computes what is constant, in bytes: everything, the weights of a GRU above all,
# which a provider packs once only if they are constants.
_NO_LIMIT = 1 << 30

# onnxruntime's CUDA provider gives these back to the CPU, or a GRU that computes its reset gate in the older order.
_ON_THE_CPU = frozenset({"Shape", "Loop", "Scan", "If", "STFT", "DFT", "NonZero"})


def export_onnx(network: nn.Module, *, frames: int, n_mels: int) -> bytes:
    """Export with a dynamic batch.

    Args:
        network: windows ``[N, frames, n_mels]`` to logits ``[N, n_labels]``, in float32.
        frames: per window.
        n_mels: mel bands.

    Returns:
        The ONNX file, without the exporter's notes, which hold source paths of this machine.

    Raises:
        ExportError: if the graph has a node that the CUDA provider would leave to the CPU.
    """
    network = with_single_nodes(network).eval()
    example = torch.zeros((2, frames, n_mels))
    with _quiet():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("N", min=1)},),
            custom_translation_table=RECURRENT_TRANSLATIONS,
        )
    assert program is not None
    model = optimizer.optimize(program.model_proto, input_size_limit=_NO_LIMIT, output_size_limit=_NO_LIMIT)
    _strip_notes(model)
    onnx.checker.check_model(model, full_check=True)
    _check_nodes(model)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def mflop_per_window(content: bytes) -> float:
    """Millions of floating-point operations for one window, a multiplication and an addition counted as two.

    Counts convolutions, matrix products and recurrent layers; the rest is less than a hundredth of them.
    """
    model = onnx.load_from_string(content)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
    } | {weights.name: list(weights.dims) for weights in inferred.initializer}
    products = 0
    for node in inferred.node:
        if node.op_type == "Conv":
            products += math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
        elif node.op_type in ("MatMul", "Gemm"):
            products += math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
        elif node.op_type in ("GRU", "LSTM"):
            steps = shapes[node.input[0]][0]
            products += steps * (math.prod(shapes[node.input[1]]) + math.prod(shapes[node.input[2]]))
    return 2 * products / 1e6


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints its progress, and warns of its own deprecated parts and of packages it does not find."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


def _strip_notes(model: onnx.ModelProto) -> None:
    for holder in (
        model,
        model.graph,
        *model.graph.node,
        *model.graph.input,
        *model.graph.output,
        *model.graph.value_info,
        *model.graph.initializer,
    ):
        del holder.metadata_props[:]
        holder.doc_string = ""
    model.producer_name, model.producer_version = "wholetrack", ""


def _check_nodes(model: onnx.ModelProto) -> None:
    found = {node.op_type for node in model.graph.node} & _ON_THE_CPU
    if found:
        raise ExportError(f"the graph has nodes that run on the CPU wherever the rest runs: {sorted(found)}")
    for node in model.graph.node:
        if node.op_type in ("GRU", "LSTM"):
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            if attributes.get("layout", 0) != 0 or (node.op_type == "GRU" and attributes["linear_before_reset"] != 1):
                raise ExportError("a GRU or LSTM must compute with layout 0, a GRU with linear_before_reset 1")
