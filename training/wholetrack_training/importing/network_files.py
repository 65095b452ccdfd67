"""Reads the file of a network: ONNX, TorchScript or Keras. Files that could run code are refused."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from wholetrack_training.errors import NetworkImportError
from wholetrack_training.importing.draft import Draft
from wholetrack_training.importing.layouts import Layout

Arrays = Sequence[NDArray[np.float32]]

_HDF5 = b"\x89HDF\r\n\x1a\n"
_PICKLE = b"\x80"
_TO_ONNX = (
    "export it in the program that has its code, with torch.onnx.export(network.eval(), ..., external_data=False)"
)
_TOO_LARGE = 1 << 30


@dataclass(frozen=True, slots=True)
class Network:
    """A network in ONNX.

    Attributes:
        model: The ONNX graph.
        format: What the file was, in words.
        layouts: Layout of each input, in the order of the card; None where the graph declares it.
        reference: Returns the outputs of the network in its own framework for its inputs, for comparison with ONNX;
            None if the file was ONNX.
    """

    model: onnx.ModelProto
    format: str
    layouts: tuple[Layout | None, ...]
    reference: Callable[[Arrays], Arrays] | None


def read_network(path: Path, draft: Draft, layout: Layout | None) -> Network:
    """Read a network, and convert it to ONNX.

    Args:
        path: The file; its kind follows from its content.
        draft: The card.
        layout: Layout of all inputs; None to find it from the shapes that the network declares.

    Raises:
        NetworkImportError: If the file is not a network that can be read safely, or cannot be converted.
    """
    if path.stat().st_size > _TOO_LARGE:
        raise NetworkImportError(f"{path} is larger than {_TOO_LARGE >> 30} GiB, which the service could not serve")
    with path.open("rb") as file:
        start = file.read(len(_HDF5))
    if zipfile.is_zipfile(path):
        return _read_archive(path, draft, layout)
    if start == _HDF5:
        raise NetworkImportError(
            f"{path} is a Keras model in HDF5, which can contain code that runs when it is loaded: save it with "
            "model.save('network.keras')"
        )
    if start.startswith(_PICKLE):
        raise _refused_pickle(path)
    return Network(_read_onnx(path), "ONNX", (layout,) * len(draft.card.inputs), None)


def _read_archive(path: Path, draft: Draft, layout: Layout | None) -> Network:
    with zipfile.ZipFile(path) as archive:
        names = {name.rpartition("/")[2] if name.endswith(".pkl") else name for name in archive.namelist()}
    if "config.json" in names and "metadata.json" in names:
        from wholetrack_training.importing.keras_file import read_keras

        return read_keras(path, draft, layout)
    if "constants.pkl" in names:
        from wholetrack_training.importing.torchscript import read_torchscript

        return read_torchscript(path, draft, layout)
    if any(name.endswith("archive_format") for name in names):
        raise NetworkImportError(
            f"{path} was written by torch.export.save, and PyTorch reads such files with pickle, which can run any "
            "code: convert it where you trust it, with "
            "torch.onnx.export(torch.export.load('network.pt2'), (), 'network.onnx', external_data=False)"
        )
    if "data.pkl" in names:
        raise _refused_pickle(path)
    raise NetworkImportError(f"{path} is not a network that can be imported: save it as ONNX")


def _refused_pickle(path: Path) -> NetworkImportError:
    return NetworkImportError(
        f"{path} contains pickled Python objects: weights without a network, or a network whose loading could run any "
        f"code; {_TO_ONNX}, or save it with torch.jit.save"
    )


def _read_onnx(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load_model_from_string(path.read_bytes())
        uses_other_files = any(map(onnx.external_data_helper.uses_external_data, _tensors(model)))
        if not uses_other_files:
            onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError) as error:
        raise NetworkImportError(f"{path} is not a valid ONNX file: {str(error).splitlines()[0]}") from error
    if uses_other_files:
        raise NetworkImportError(
            f"{path} keeps its weights in other files, and a bundle has one file: pass external_data=False to "
            "torch.onnx.export, or write it again with onnx.save(onnx.load('network.onnx'), 'one-file.onnx')"
        )
    return model


def _tensors(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Return the tensors of the graph, of its subgraphs and of the functions of the model."""
    graphs, tensors = [model.graph], []
    nodes = [node for function in model.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            tensors += graph.initializer
            nodes += graph.node
        else:
            for attribute in nodes.pop().attribute:
                tensors += [attribute.t, *attribute.tensors]
                graphs += [attribute.g, *attribute.graphs]
    return tensors
