"""Export of GRU and LSTM layers as one ONNX node each, in the form that onnxruntime's CUDA provider runs on the GPU.

PyTorch's exporter computes the shape of the initial state at run time, in a node that runs on the CPU, and unrolls the
layer over time to infer its output. Here each layer is replaced before the export by a custom operator, which is opaque
to the exporter, has a known output shape, and is translated to a single node.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from onnxscript.onnx_opset import opset18
from torch import Tensor, nn

from wholetrack_training.errors import ExportError

# The type annotations of onnxscript's operators do not match the symbolic values that they accept.
op: Any = opset18
_Value = TypeVar("_Value")

# For each gate of the ONNX node, the index of the gate in PyTorch. The gates of a GRU are reset, update, new in PyTorch
# and update, reset, new in ONNX; those of an LSTM are input, forget, cell, output and input, output, forget, cell.
_GATES = {"GRU": (1, 0, 2), "LSTM": (0, 3, 1, 2)}


def with_single_nodes(network: nn.Module) -> nn.Module:
    """Return a copy of a network that exports each of its GRU and LSTM layers as one node.

    Raises:
        ExportError: If a layer is stacked, has no biases, or has time as its first axis.
    """
    replaced = copy.deepcopy(network)
    for module in list(replaced.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.RNNBase):
                setattr(module, name, _SingleNode(child))
    return replaced


class _SingleNode(nn.Module):
    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        if layer.mode not in _GATES or layer.num_layers != 1 or not layer.bias or not layer.batch_first:
            raise ExportError("only a GRU or LSTM with one layer, biases and batch_first=True can be exported")
        self.kind = layer.mode
        directions = ("", "_reverse") if layer.bidirectional else ("",)
        self.weights = nn.ParameterList(
            getattr(layer, f"{name}_l0{direction}")
            for direction in directions
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return _recurrent(x, list(self.weights), self.kind), None


@torch.library.custom_op("wholetrack::recurrent", mutates_args=())
def _recurrent(x: Tensor, weights: list[Tensor], kind: str) -> Tensor:
    raise NotImplementedError(f"{kind} can only be exported, not run: {len(weights)} weights, input {x.shape}")


@_recurrent.register_fake
def _(x: Tensor, weights: list[Tensor], kind: str) -> Tensor:
    del kind
    return x.new_empty((x.shape[0], x.shape[1], weights[1].shape[1] * (len(weights) // 4)))


def _translate(x: _Value, weights: Sequence[Any], kind: str) -> Any:  # noqa: ANN401
    hidden, bidirectional = weights[1].shape[1], len(weights) == 8
    order = op.Constant(value_ints=[row for gate in _GATES[kind] for row in range(gate * hidden, (gate + 1) * hidden)])
    first = op.Constant(value_ints=[0])

    def reordered(which: int) -> Any:  # noqa: ANN401
        directions = [op.Unsqueeze(op.Gather(weights[i], order, axis=0), first) for i in range(which, len(weights), 4)]
        return op.Concat(*directions, axis=0) if bidirectional else directions[0]

    attributes = {"linear_before_reset": 1} if kind == "GRU" else {}
    out, *_ = getattr(op, kind)(
        op.Transpose(x, perm=[1, 0, 2]),
        reordered(0),
        reordered(1),
        op.Concat(reordered(2), reordered(3), axis=1),
        hidden_size=hidden,
        direction="bidirectional" if bidirectional else "forward",
        **attributes,
    )
    # [time, directions, N, hidden] to [N, time, directions * hidden].
    return op.Reshape(op.Transpose(out, perm=[2, 0, 1, 3]), op.Constant(value_ints=[0, 0, -1]))


RECURRENT_TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.wholetrack.recurrent.default: _translate,
}
"""The ``custom_translation_table`` for the exporter."""
