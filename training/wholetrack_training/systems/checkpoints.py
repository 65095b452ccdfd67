"""Reads and writes the weights of wholetrack-crnn 2, together with the tags that they are for."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from wholetrack_training.errors import DataError
from wholetrack_training.systems.taxonomy import TagMap
from wholetrack_training.systems.two_towers import JointHead, JointShape, TaggerHead, TwoTowerCrnn

MN04_HIDDEN = 512
"""Units of the hidden layer of mn04's head."""


def new_network(tags: tuple[str, ...]) -> TwoTowerCrnn:
    """Return a network with random weights for some tags of AudioSet."""
    return TwoTowerCrnn(JointHead(JointShape(), TaggerHead(MN04_HIDDEN, len(tags)), TagMap(tags)))


def save_network(path: Path, network: TwoTowerCrnn) -> None:
    """Write the weights of a network."""
    state = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    write_tensors(path, {"tags": list(network.head.tag_map.labels), "state": state})


def load_network(path: Path) -> TwoTowerCrnn:
    """Return the network of a file, in evaluation mode.

    Raises:
        DataError: If the file is missing or damaged.
    """
    try:
        content = read_tensors(path, torch.device("cpu"))
        network = new_network(tuple(content["tags"]))
        network.load_state_dict(content["state"])
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise DataError(f"{path} does not hold the weights of wholetrack-crnn 2: {error}") from error
    return network.eval()


def write_tensors(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values; an interrupted call leaves an older file as it was."""
    unfinished = path.with_suffix(".unfinished")
    torch.save(content, unfinished)
    unfinished.replace(path)


def read_tensors(path: Path, device: torch.device) -> dict[str, Any]:
    """Read what :func:`write_tensors` wrote.

    Raises:
        DataError: If the file is missing or damaged, or contains anything else.
    """
    try:
        content = torch.load(path, weights_only=True, map_location=device)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} does not contain weights")
    return content
