"""A trained network as ONNX, in the form that every execution provider can keep whole on its device."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import onnx
import torch
from onnxscript import optimizer
from onnxscript.onnx_opset import opset18
from torch import nn

INPUT = "windows"
OUTPUT = "logits"
OPSET = 18

# Sizes under which the optimiser computes what is constant, in bytes: everything, the weights of a GRU above all,
# which a provider packs once only if they are constants.
_NO_LIMIT = 1 << 30

# onnxruntime's CUDA provider gives these back to the CPU, or a GRU that computes its reset gate in the older order.
_ON_THE_CPU = frozenset({"Shape", "Loop", "Scan", "If", "STFT", "DFT", "NonZero"})


class ExportError(Exception):
    """The exported network is not what the service could serve."""


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
    network = network.eval()
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
            custom_translation_table={torch.ops.aten.gru.input: _translate_gru},
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


# onnxscript's values are symbolic, whatever the types of its functions say.
op: Any = opset18
_Value = TypeVar("_Value")


def _translate_gru(
    x: _Value,
    _state: _Value,
    params: Sequence[Any],
    has_biases: bool,  # noqa: FBT001 - the signature of aten.gru.input
    num_layers: int,
    _dropout: float,
    train: bool,  # noqa: FBT001
    bidirectional: bool,  # noqa: FBT001
    batch_first: bool,  # noqa: FBT001
) -> tuple[_Value, _Value]:
    """A GRU of one layer from zero state as one node; the exporter's own computes shapes at run time, on the CPU."""
    if num_layers != 1 or not has_biases or train:
        raise ExportError("only a GRU of one layer with biases, in evaluation mode, is translated")
    hidden = params[1].shape[1]
    # PyTorch orders the gates reset, update, new; ONNX update, reset, new.
    order = op.Constant(value_ints=[*range(hidden, 2 * hidden), *range(hidden), *range(2 * hidden, 3 * hidden)])
    first = op.Constant(value_ints=[0])

    def reordered(kind: int) -> Any:  # noqa: ANN401
        directions = [op.Unsqueeze(op.Gather(params[i], order, axis=0), first) for i in range(kind, len(params), 4)]
        return op.Concat(*directions, axis=0) if bidirectional else directions[0]

    out, last = op.GRU(
        op.Transpose(x, perm=[1, 0, 2]) if batch_first else x,
        reordered(0),
        reordered(1),
        op.Concat(reordered(2), reordered(3), axis=1),
        hidden_size=hidden,
        direction="bidirectional" if bidirectional else "forward",
        linear_before_reset=1,
    )
    # [time, directions, N, hidden] to [N, time, directions * hidden], or to [time, N, ...].
    joined = op.Reshape(
        op.Transpose(out, perm=[2, 0, 1, 3] if batch_first else [0, 2, 1, 3]), op.Constant(value_ints=[0, 0, -1])
    )
    return joined, last


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
        if node.op_type == "GRU":
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            if attributes.get("linear_before_reset") != 1 or attributes.get("layout", 0) != 0:
                raise ExportError("a GRU must compute with linear_before_reset 1 and layout 0")
