"""Export of a trained network to ONNX, in a form that every execution provider runs entirely on its device."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence

import onnx
import onnx.numpy_helper
import onnx_ir
import torch
from onnxscript import optimizer
from torch import nn

from wholetrack_training.errors import ExportError
from wholetrack_training.export.recurrent import RECURRENT_TRANSLATIONS, with_single_nodes

INPUT = "windows"
OUTPUT = "logits"
OPSET = 18

# Size in bytes up to which the optimiser folds constants: no limit. This matters most for the weights of a GRU, because
# an execution provider packs them ahead of time only if they are constants.
_NO_LIMIT = 1 << 30

# onnxruntime's CUDA provider runs these on the CPU, and also a GRU that computes its reset gate in the older order.
_CPU_ONLY = frozenset({"Shape", "Loop", "Scan", "If", "STFT", "DFT", "NonZero"})


def export_onnx(network: nn.Module, *, frames: int, n_mels: int) -> bytes:
    """Export a network with a dynamic batch size.

    Args:
        network: Maps windows ``[N, frames, n_mels]`` to logits ``[N, n_labels]``, in float32.
        frames: Frames per window.
        n_mels: Mel bands per frame.

    Returns:
        The ONNX file, without the exporter's metadata, which contains source paths of this machine.

    Raises:
        ExportError: If the graph has a node that the CUDA provider would run on the CPU.
    """
    return export_onnx_graph(network, inputs={INPUT: (frames, n_mels)}, outputs=[OUTPUT])


def export_onnx_graph(network: nn.Module, *, inputs: Mapping[str, tuple[int, int]], outputs: Sequence[str]) -> bytes:
    """Export a network with any number of inputs and outputs, and a dynamic batch size.

    Args:
        network: Maps one tensor ``[N, frames, n_mels]`` per input to one tensor ``[N, ...]`` per output, in float32.
        inputs: Frames and mel bands of each input, by name, in the order of the network's arguments.
        outputs: Names of the outputs, in order.

    Returns:
        The ONNX file, without the exporter's metadata, which contains source paths of this machine.

    Raises:
        ExportError: If the graph has a node that the CUDA provider would run on the CPU.
    """
    return ExportedGraph(network, inputs=inputs, outputs=outputs).with_weights_of(network)


class ExportedGraph:
    """The graph of a network, into which the weights of networks of the same form can be put.

    Tracing a network takes half a minute, exchanging the weights of its graph a few seconds.

    Args:
        network: Maps one tensor ``[N, frames, n_mels]`` per input to one tensor ``[N, ...]`` per output, in float32.
        inputs: Frames and mel bands of each input, by name, in the order of the network's arguments.
        outputs: Names of the outputs, in order.
    """

    def __init__(self, network: nn.Module, *, inputs: Mapping[str, tuple[int, int]], outputs: Sequence[str]) -> None:
        examples = tuple(torch.zeros((2, *shape)) for shape in inputs.values())
        batch = torch.export.Dim("N", min=1)
        with quiet_export():
            program = torch.onnx.export(
                with_single_nodes(network).eval(),
                examples,
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=tuple({0: batch} for _ in inputs),
                custom_translation_table=RECURRENT_TRANSLATIONS,
                # Constants are folded with the weights of each network.
                optimize=False,
            )
        assert program is not None
        self._program = program
        self._traced = program.model_proto

    def with_weights_of(self, network: nn.Module) -> bytes:
        """Return the ONNX file of a network with the same layers.

        Raises:
            ExportError: If the graph has a node that the CUDA provider would run on the CPU.
        """
        weights = with_single_nodes(network).state_dict()
        graph = onnx.ModelProto()
        graph.CopyFrom(self._traced)
        for initializer in graph.graph.initializer:
            if initializer.name in weights:
                array = weights[initializer.name].detach().cpu().numpy()
                initializer.CopyFrom(onnx.numpy_helper.from_array(array, initializer.name))
        with quiet_export():
            self._program.model = onnx_ir.from_proto(graph)
            self._program.optimize()
            optimised = self._program.model_proto
        return finished(optimised)


def finished(exported: onnx.ModelProto) -> bytes:
    """Return the ONNX file of an exported graph: with constants folded, without metadata, and checked.

    Raises:
        ExportError: If the graph has a node that the CUDA provider would run on the CPU.
    """
    model = optimizer.optimize(exported, input_size_limit=_NO_LIMIT, output_size_limit=_NO_LIMIT)
    _strip_metadata(model)
    onnx.checker.check_model(model, full_check=True)
    _check_nodes(model)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


@contextlib.contextmanager
def quiet_export() -> Iterator[None]:
    """Silence the exporter: it prints its progress, and warns of its own deprecated code and of optional packages."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


def _strip_metadata(model: onnx.ModelProto) -> None:
    for part in (
        model,
        model.graph,
        *model.graph.node,
        *model.graph.input,
        *model.graph.output,
        *model.graph.value_info,
        *model.graph.initializer,
    ):
        del part.metadata_props[:]
        part.doc_string = ""
    model.producer_name, model.producer_version = "wholetrack", ""


def _check_nodes(model: onnx.ModelProto) -> None:
    found = {node.op_type for node in model.graph.node} & _CPU_ONLY
    if found:
        raise ExportError(f"the graph has nodes that the CUDA provider runs on the CPU: {sorted(found)}")
    for node in model.graph.node:
        if node.op_type in ("GRU", "LSTM"):
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            if attributes.get("layout", 0) != 0 or (node.op_type == "GRU" and attributes["linear_before_reset"] != 1):
                raise ExportError("a GRU or LSTM must have layout 0, and a GRU linear_before_reset 1")
