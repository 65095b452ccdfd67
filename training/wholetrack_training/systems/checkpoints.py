"""Reads and writes the weights of wholetrack-crnn 2, together with the tags that they are for."""

from __future__ import annotations

from pathlib import Path

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
    unfinished = path.with_suffix(".unfinished")
    torch.save({"tags": list(network.head.tag_map.labels), "state": state}, unfinished)
    unfinished.replace(path)


def load_network(path: Path) -> TwoTowerCrnn:
    """Return the network of a file, in evaluation mode.

    Raises:
        DataError: If the file is missing or damaged.
    """
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
        network = new_network(tuple(content["tags"]))
        network.load_state_dict(content["state"])
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise DataError(f"{path} does not hold the weights of wholetrack-crnn 2: {error}") from error
    return network.eval()
