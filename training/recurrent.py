"""GRU and LSTM as one ONNX node each, in the form that onnxruntime's CUDA provider keeps on the GPU.

The exporter's own translations compute the shape of the initial state at run time, which is a node for the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from onnxscript.onnx_opset import opset18

# onnxscript's values are symbolic, whatever the types of its functions say.
op: Any = opset18
_Value = TypeVar("_Value")


class ExportError(Exception):
    """The exported network is not what the service could serve."""


def _layer(
    x: _Value,
    params: Sequence[Any],
    has_biases: bool,  # noqa: FBT001 - this and the next four: the signatures of aten.gru.input and aten.lstm.input
    num_layers: int,
    train: bool,  # noqa: FBT001
    bidirectional: bool,  # noqa: FBT001
    batch_first: bool,  # noqa: FBT001
    *,
    node: Callable[..., tuple[Any, ...]],
    gates: Sequence[int],
    **attributes: int,
) -> tuple[Any, ...]:
    """A recurrent layer from zero state: its output as PyTorch arranges it, and what else the node gives.

    ``gates`` says for each of the ONNX node's gates which of PyTorch's it is.
    """
    if num_layers != 1 or not has_biases or train:
        raise ExportError("only a recurrent layer of one level with biases, in evaluation mode, is translated")
    hidden = params[1].shape[1]
    order = op.Constant(value_ints=[row for gate in gates for row in range(gate * hidden, (gate + 1) * hidden)])
    first = op.Constant(value_ints=[0])

    def reordered(kind: int) -> Any:  # noqa: ANN401
        directions = [op.Unsqueeze(op.Gather(params[i], order, axis=0), first) for i in range(kind, len(params), 4)]
        return op.Concat(*directions, axis=0) if bidirectional else directions[0]

    out, *last = node(
        op.Transpose(x, perm=[1, 0, 2]) if batch_first else x,
        reordered(0),
        reordered(1),
        op.Concat(reordered(2), reordered(3), axis=1),
        hidden_size=hidden,
        direction="bidirectional" if bidirectional else "forward",
        **attributes,
    )
    # [time, directions, N, hidden] to [N, time, directions * hidden], or to [time, N, ...].
    joined = op.Reshape(
        op.Transpose(out, perm=[2, 0, 1, 3] if batch_first else [0, 2, 1, 3]), op.Constant(value_ints=[0, 0, -1])
    )
    return joined, *last


def _gru(
    x: _Value,
    _state: _Value,
    params: Sequence[Any],
    has_biases: bool,  # noqa: FBT001
    num_layers: int,
    _dropout: float,
    train: bool,  # noqa: FBT001
    bidirectional: bool,  # noqa: FBT001
    batch_first: bool,  # noqa: FBT001
) -> tuple[Any, ...]:
    # PyTorch orders the gates reset, update, new; ONNX update, reset, new.
    return _layer(
        x,
        params,
        has_biases,
        num_layers,
        train,
        bidirectional,
        batch_first,
        node=op.GRU,
        gates=(1, 0, 2),
        linear_before_reset=1,
    )


def _lstm(
    x: _Value,
    _states: Sequence[_Value],
    params: Sequence[Any],
    has_biases: bool,  # noqa: FBT001
    num_layers: int,
    _dropout: float,
    train: bool,  # noqa: FBT001
    bidirectional: bool,  # noqa: FBT001
    batch_first: bool,  # noqa: FBT001
) -> tuple[Any, ...]:
    # PyTorch orders the gates input, forget, cell, output; ONNX input, output, forget, cell.
    return _layer(
        x, params, has_biases, num_layers, train, bidirectional, batch_first, node=op.LSTM, gates=(0, 3, 1, 2)
    )


RECURRENT_TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.gru.input: _gru,
    torch.ops.aten.lstm.input: _lstm,
}
"""For the exporter's ``custom_translation_table``."""
