"""The number of floating-point operations of an ONNX network."""

from __future__ import annotations

import math

import onnx


def mflop_per_window(content: bytes) -> float:
    """Return the millions of floating-point operations per window; a multiplication and an addition count as two.

    Counts convolutions, matrix products and recurrent layers. Everything else is less than a hundredth of the total.

    Args:
        content: The ONNX file.
    """
    model = onnx.load_from_string(content)
    for entry in model.graph.input:
        entry.type.tensor_type.shape.dim[0].dim_value = 1
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
