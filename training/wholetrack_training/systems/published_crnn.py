"""Reads the weights of wholetrack-crnn 1 back from its bundle, so that a new network can start from them."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import numpy_helper
from torch import Tensor

from wholetrack_training.errors import DataError
from wholetrack_training.systems.gtzan import GTZAN_AUDIO
from wholetrack_training.systems.taxonomy import GTZAN
from wholetrack_training.systems.two_towers import SPECTRUM_BANDS
from wholetrack_training.systems.wholetrack_crnn import Crnn, CrnnShape

SHAPE = CrnnShape(centred=True, masked_top_bands=6)
"""The published network."""

_LAYERS_OF_A_BLOCK = 6
_BATCH_NORM_EPS = 1e-5


def read_crnn(bundle: Path) -> Crnn:
    """Return the network of a bundle such as ``models/wholetrack-crnn-gtzan/1``, in evaluation mode.

    The export merged the batch normalisation into the convolutions. Here it only adds their bias.

    Raises:
        DataError: If the bundle does not hold such a network.
    """
    network = Crnn(SHAPE, n_mels=SPECTRUM_BANDS, n_labels=len(GTZAN))
    try:
        graph = onnx.load(bundle / "model.onnx").graph
        stored = {item.name: torch.from_numpy(numpy_helper.to_array(item).copy()) for item in graph.initializer}
        nodes = {node.op_type: node for node in graph.node}
        state = network.state_dict()
        state |= {name: value for name, value in stored.items() if name in state}
        for i in range(0, _LAYERS_OF_A_BLOCK * len(SHAPE.channels), _LAYERS_OF_A_BLOCK):
            norm = f"blocks.{i + 1}"
            state[f"{norm}.bias"] = stored[f"blocks.{i}.weight_bias"]
            state[f"{norm}.weight"] = torch.ones_like(state[f"{norm}.bias"])
            state[f"{norm}.running_mean"] = torch.zeros_like(state[f"{norm}.bias"])
            state[f"{norm}.running_var"] = torch.full_like(state[f"{norm}.bias"], 1 - _BATCH_NORM_EPS)
        state["attention.score.weight"] = stored[_first(nodes["MatMul"].input, stored)].T
        state |= _recurrent(*(stored[name] for name in nodes["GRU"].input[1:4]))
        network.load_state_dict(state)
    except (OSError, KeyError, ValueError, RuntimeError, StopIteration, DecodeError) as error:
        raise DataError(f"{bundle} does not hold {GTZAN_AUDIO.sample_rate} Hz wholetrack-crnn 1: {error}") from error
    return network.eval()


def _first(names: list[str], stored: dict[str, Tensor]) -> str:
    return next(name for name in names if name in stored)


def _recurrent(inputs: Tensor, recurrent: Tensor, biases: Tensor) -> dict[str, Tensor]:
    """Return the weights of the GRU. ONNX orders its gates as update, reset, new; PyTorch as reset, update, new."""
    hidden = SHAPE.hidden
    order = torch.cat((torch.arange(hidden, 2 * hidden), torch.arange(hidden), torch.arange(2 * hidden, 3 * hidden)))
    state = {}
    for direction, suffix in enumerate(("", "_reverse")):
        state[f"gru.weight_ih_l0{suffix}"] = inputs[direction][order]
        state[f"gru.weight_hh_l0{suffix}"] = recurrent[direction][order]
        state[f"gru.bias_ih_l0{suffix}"] = biases[direction][: 3 * hidden][order]
        state[f"gru.bias_hh_l0{suffix}"] = biases[direction][3 * hidden :][order]
    return state
