"""Changes to the graph of a network, so that it has the inputs and outputs that the service expects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from wholetrack.contracts import InputSpec
from wholetrack_training.errors import NetworkImportError
from wholetrack_training.importing.draft import SCORES_FROM_TAGS, Draft
from wholetrack_training.importing.layouts import Layout, layout_of

_BATCH = "N"
_STANDARD_DOMAINS = ("", "ai.onnx")
# Probabilities of exactly 0 and 1 have no finite logit.
_SMALLEST_PROBABILITY = 1e-7


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of the standard operators that a network uses."""
    return max((entry.version for entry in model.opset_import if entry.domain in _STANDARD_DOMAINS), default=0)


def check_names(model: onnx.ModelProto, draft: Draft) -> None:
    """Check that the network has the inputs and outputs that the card describes, and no others.

    Raises:
        NetworkImportError: If that is not the case.
    """
    described = {"input": [entry.name for entry in draft.card.inputs], "output": list(draft.network_outputs)}
    present = {"input": _inputs(model), "output": list(model.graph.output)}
    for kind, names in described.items():
        found = [value.name for value in present[kind]]
        if sorted(found) != sorted(names):
            raise NetworkImportError(
                f"the {kind}s of the network are {found}, and the card describes {names}: every {kind} needs an entry "
                f"on the card with its name; export the network without those that the service does not know"
            )


def feed_windows(model: onnx.ModelProto, draft: Draft, layouts: Sequence[Layout | None]) -> tuple[Layout, ...]:
    """Make every input ``[N, frames, n_mels]``; the rest of the network gets the axes that it was trained with.

    Args:
        model: The network, which is changed.
        draft: The card.
        layouts: Layout of each input; None to find it from the shape that the network declares.

    Returns:
        Layout of each input.

    Raises:
        NetworkImportError: If an input has another type or shape, or accepts only one size of batch.
    """
    values = {value.name: value for value in _inputs(model)}
    found = []
    for entry, layout in zip(draft.card.inputs, layouts, strict=True):
        value = values[entry.name]
        declared = _declared(value)
        if value.type.tensor_type.elem_type != TensorProto.FLOAT:
            raise NetworkImportError(f"the input {entry.name!r} of the network is not float32: convert the network")
        if declared and isinstance(declared[0], int):
            raise NetworkImportError(
                f"the input {entry.name!r} of the network accepts batches of {declared[0]} only: export the network "
                "with a first axis of variable size"
            )
        rest = None if declared is None else declared[1:]
        found.append(layout_of(entry.name, rest, (entry.frames, entry.features.n_mels), layout))
        _arrange(model, value, entry, found[-1])
    # Shapes of values inside the graph may contradict those that are known now.
    del model.graph.value_info[:]
    return tuple(found)


def add_scores(model: onnx.ModelProto, draft: Draft) -> None:
    """Add the logits of the genres to a network that has tags only: those of the tags that are genres."""
    if draft.genre_tags is None:
        return
    tags = draft.card.outputs.tags
    assert tags
    name, logits = SCORES_FROM_TAGS, tags.name
    nodes, constants = [], [numpy_helper.from_array(np.array(draft.genre_tags, dtype=np.int64), f"{name}/positions")]
    if tags.yields == "probabilities":
        logits = f"{name}/logits"
        bounds = {"least": _SMALLEST_PROBABILITY, "most": 1 - _SMALLEST_PROBABILITY, "one": 1.0}
        constants += [
            helper.make_tensor(f"{name}/{key}", TensorProto.FLOAT, [], [value]) for key, value in bounds.items()
        ]
        nodes += [
            helper.make_node("Clip", [tags.name, f"{name}/least", f"{name}/most"], [f"{name}/probability"]),
            helper.make_node("Sub", [f"{name}/one", f"{name}/probability"], [f"{name}/opposite"]),
            helper.make_node("Div", [f"{name}/probability", f"{name}/opposite"], [f"{name}/odds"]),
            helper.make_node("Log", [f"{name}/odds"], [logits]),
        ]
    nodes.append(helper.make_node("Gather", [logits, f"{name}/positions"], [name], axis=1))
    model.graph.initializer.extend(constants)
    model.graph.node.extend(nodes)
    model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))


def declare_outputs(model: onnx.ModelProto, draft: Draft) -> None:
    """Declare the shapes of the outputs, which have been checked by running the network."""
    card = draft.card
    shapes = dict(zip(card.outputs.names, card.output_shapes, strict=True))
    for value in model.graph.output:
        value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, [_BATCH, *shapes[value.name]]))


def produced_by(model: onnx.ModelProto, output: str) -> str | None:
    """Return the operator whose result an output is, without those that only change type or shape."""
    producers = {name: node for node in model.graph.node for name in node.output}
    while (node := producers.get(output)) and node.op_type in {"Identity", "Cast", "Reshape", "Flatten", "Squeeze"}:
        output = node.input[0]
    return node.op_type if node else None


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    # Up to version 3 of the file format, weights are inputs with a default value.
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def _declared(value: onnx.ValueInfoProto) -> list[int | str | None] | None:
    if not value.type.tensor_type.HasField("shape"):
        return None
    dimensions = value.type.tensor_type.shape.dim
    return [
        dimension.dim_value if dimension.HasField("dim_value") else dimension.dim_param or None
        for dimension in dimensions
    ]


def _arrange(model: onnx.ModelProto, value: onnx.ValueInfoProto, entry: InputSpec, layout: Layout) -> None:
    """Insert the nodes that turn windows into the layout of the network, and declare the shape of the input."""
    frames, n_mels = entry.frames, entry.features.n_mels
    if layout is not Layout.FRAMES_MELS:
        arranged, swapped, shape = f"{entry.name}/arranged", f"{entry.name}/swapped", f"{entry.name}/shape"
        for node in model.graph.node:
            node.input[:] = [arranged if name == entry.name else name for name in node.input]
        before = [
            helper.make_node("Transpose", [entry.name], [swapped], perm=[0, 2, 1])
            if layout.transposed
            else helper.make_node("Identity", [entry.name], [swapped]),
            # 0 keeps the size of the batch.
            helper.make_node("Reshape", [swapped, shape], [arranged]),
        ]
        sizes = np.array([0, *layout.shape(frames, n_mels)], dtype=np.int64)
        model.graph.initializer.append(numpy_helper.from_array(sizes, shape))
        nodes = [*before, *model.graph.node]
        del model.graph.node[:]
        model.graph.node.extend(nodes)
    value.CopyFrom(helper.make_tensor_value_info(entry.name, TensorProto.FLOAT, [_BATCH, frames, n_mels]))
