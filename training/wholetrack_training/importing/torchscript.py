"""Reads networks in TorchScript, which PyTorch loads without running Python code."""

from __future__ import annotations

import re
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from wholetrack_training.errors import NetworkImportError
from wholetrack_training.export.to_onnx import OPSET, quiet_export
from wholetrack_training.importing.draft import Draft
from wholetrack_training.importing.layouts import Layout
from wholetrack_training.importing.network_files import Arrays, Network

# TorchScript is a language of its own without files and processes, except for these operators. A module may run some of
# its code when it is loaded, so that the code is searched before that.
_OUTSIDE = re.compile(r"\b(save|from_file|rpc_\w+)\b|\bops\s*\.\s*(?!quantized\b|prims?\b)\w+")


def read_torchscript(path: Path, draft: Draft, layout: Layout | None) -> Network:
    """Read a TorchScript file, and convert it to ONNX.

    Args:
        path: The file.
        draft: The card. The network must take its inputs, and return its outputs, in the order of the card.
        layout: Layout of all inputs; None for ``frames,mels``, because TorchScript declares no shapes.

    Raises:
        NetworkImportError: If the network cannot be read or converted.
    """
    _check_code(path)
    card, arranged = draft.card, layout or Layout.FRAMES_MELS
    shapes = [arranged.shape(entry.frames, entry.features.n_mels) for entry in card.inputs]
    names = [entry.name for entry in card.inputs]
    axes = {name: {0: "N"} for name in (*names, *draft.network_outputs)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network: Any = torch.jit.load(path, map_location="cpu").eval()  # type: ignore[no-untyped-call]
            with torch.inference_mode():
                _check_count(path, _outputs(network(*(torch.zeros((2, *shape)) for shape in shapes))), draft)
            with quiet_export(), tempfile.NamedTemporaryFile() as converted:
                torch.onnx.export(
                    network,
                    tuple(torch.zeros((2, *shape)) for shape in shapes),
                    converted.name,
                    dynamo=False,
                    opset_version=OPSET,
                    input_names=names,
                    output_names=list(draft.network_outputs),
                    dynamic_axes=axes,
                )
                model = onnx.load_model_from_string(Path(converted.name).read_bytes())
    except NetworkImportError:
        raise
    except Exception as error:  # PyTorch raises several classes without a common base
        shown = ", ".join(f"[N, {', '.join(map(str, shape))}]" for shape in shapes)
        raise NetworkImportError(
            f"PyTorch cannot run or convert {path} with inputs of the shape {shown}: {_last_line(error)}; if the axes "
            "are in another order, pass --layout"
        ) from error

    def reference(inputs: Arrays) -> Arrays:
        with torch.inference_mode():
            return [np.asarray(output.numpy()) for output in _outputs(network(*map(torch.from_numpy, inputs)))]

    return Network(model, "TorchScript", (arranged,) * len(names), reference)


def _check_code(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        # By entry, not by name: two entries may have the same name.
        for entry in archive.infolist():
            if entry.filename.endswith(".py") and (found := _OUTSIDE.search(archive.read(entry).decode("latin-1"))):
                raise NetworkImportError(
                    f"{path} contains the operator {found[0]!r}, which may access files or the network: save the "
                    "network without it"
                )


def _outputs(found: torch.Tensor | tuple[torch.Tensor, ...] | list[torch.Tensor]) -> list[torch.Tensor]:
    return [found] if isinstance(found, torch.Tensor) else list(found)


def _check_count(path: Path, found: list[torch.Tensor], draft: Draft) -> None:
    if len(found) != len(draft.network_outputs):
        raise NetworkImportError(
            f"{path} returns {len(found)} outputs, and the card describes {len(draft.network_outputs)}: "
            f"{', '.join(draft.network_outputs)}, in this order"
        )


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
