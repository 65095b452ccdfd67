"""Reads networks that Keras saved (``.keras``), which is an optional package."""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
from onnxscript import optimizer
from packaging.version import Version

from wholetrack_training.errors import NetworkImportError
from wholetrack_training.export.to_onnx import quiet_export
from wholetrack_training.importing.draft import Draft
from wholetrack_training.importing.layouts import Layout, layout_of
from wholetrack_training.importing.network_files import Arrays, Network

# In earlier versions a file could run code although safe_mode was set (CVE-2025-1550, CVE-2025-8747, CVE-2025-9906).
_MIN_VERSION = Version("3.12")
_INSTALL = "pip install 'keras>=3.12'"


def read_keras(path: Path, draft: Draft, layout: Layout | None) -> Network:
    """Read a ``.keras`` file, and convert it to ONNX with PyTorch as the backend.

    Args:
        path: The file.
        draft: The card. The network must take its inputs, and return its outputs, in the order of the card.
        layout: Layout of all inputs; None to find it from the shapes that the network declares.

    Raises:
        NetworkImportError: If Keras is missing, or the network cannot be read or converted.
    """
    keras, inputs = _keras(), draft.card.inputs
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network: Any = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises several classes without a common base
        raise NetworkImportError(f"Keras cannot load {path}: {_first_line(error)}") from error
    shapes = [tuple(entry.shape)[1:] for entry in network.inputs]
    if len(shapes) != len(inputs) or len(network.outputs) != len(draft.network_outputs):
        raise NetworkImportError(
            f"{path} has {len(shapes)} inputs and {len(network.outputs)} outputs, and the card describes "
            f"{len(inputs)} and {len(draft.network_outputs)}: {', '.join(draft.network_outputs)}, in this order"
        )
    layouts = tuple(
        layout_of(entry.name, shape, (entry.frames, entry.features.n_mels), layout)
        for entry, shape in zip(inputs, shapes, strict=True)
    )
    examples = [
        np.zeros((2, *found.shape(entry.frames, entry.features.n_mels)), dtype=np.float32)
        for entry, found in zip(inputs, layouts, strict=True)
    ]

    def reference(arrays: Arrays) -> Arrays:
        found = network(arrays[0] if len(arrays) == 1 else list(arrays), training=False)
        outputs = found if isinstance(found, list | tuple) else [found]
        return [np.asarray(keras.ops.convert_to_numpy(output)) for output in outputs]

    try:
        with warnings.catch_warnings(), quiet_export(), tempfile.TemporaryDirectory() as folder:
            warnings.simplefilter("ignore")
            # Keras exports only networks that have run.
            reference(examples)
            network.export(Path(folder) / "network.onnx", format="onnx", verbose=False)
            model = onnx.load_model_from_string((Path(folder) / "network.onnx").read_bytes())
        model = optimizer.optimize(model)
    except Exception as error:
        raise NetworkImportError(f"Keras cannot export {path} to ONNX: {_first_line(error)}") from error
    _rename(model, draft)
    return Network(model, "Keras", layouts, reference)


def _keras() -> ModuleType:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    try:
        import keras
    except ImportError as error:
        raise NetworkImportError(f"Keras is needed to read a .keras file: {_INSTALL}") from error
    if Version(keras.__version__) < _MIN_VERSION:
        raise NetworkImportError(f"Keras {keras.__version__} does not read files safely: {_INSTALL}")
    if keras.backend.backend() != "torch":
        raise NetworkImportError("Keras must run on PyTorch here: set KERAS_BACKEND=torch")
    module: ModuleType = keras
    return module


def _rename(model: onnx.ModelProto, draft: Draft) -> None:
    """Give the inputs and outputs the names of the card; Keras numbers them."""
    names = [entry.name for entry in draft.card.inputs]
    renamed = dict(zip((value.name for value in model.graph.input), names, strict=True))
    renamed |= dict(zip((value.name for value in model.graph.output), draft.network_outputs, strict=True))
    for value in (*model.graph.input, *model.graph.output):
        value.name = renamed[value.name]
    for node in model.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
