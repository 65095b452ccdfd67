"""Reads the weights of a published network from an ``.npz`` file."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wholetrack_training.errors import DataError


@dataclass(frozen=True, slots=True)
class PublishedWeights:
    """Arrays under their published names, and the labels in the order of the output.

    Attributes:
        arrays: The weights by name.
        labels: Names of the outputs.
    """

    arrays: dict[str, NDArray[np.float32]]
    labels: tuple[str, ...]

    def tensor(self, name: str) -> Tensor:
        """Return one array as a tensor."""
        return torch.from_numpy(self.arrays[name].copy())

    def load_into(self, network: nn.Module) -> None:
        """Copy all weights into a network whose parameters have the published names.

        Raises:
            DataError: If the names or shapes differ.
        """
        try:
            network.load_state_dict({name: self.tensor(name) for name in self.arrays})
        except RuntimeError as error:
            raise DataError(f"the weights do not fit the network: {error}") from error


def read_weights(path: Path) -> PublishedWeights:
    """Read a file of weights.

    Raises:
        DataError: If the file is missing or damaged, or has no labels.
    """
    try:
        with path.open("rb") as content, np.load(content, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if name != "labels"}
            labels = tuple(str(label) for label in file["labels"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} does not hold the weights of a published network: {error}") from error
    return PublishedWeights(arrays, labels)
