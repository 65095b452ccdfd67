"""The fully convolutional tagger of Won et al. (2020, ``sota-music-tagging-models``): 50 tags for 29 s of music."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from wholetrack_training.systems.taggers.weights import PublishedWeights

SECONDS = 29.0
"""Length of a window in seconds."""
FRAMES = 1813
"""Frames of a window."""

_CHANNELS = (1, 64, 128, 128, 128, 64)
_POOLS = ((2, 4), (2, 4), (2, 4), (3, 5), (4, 4))


class Fcn(nn.Module):
    """Maps windows ``[N, 1813, 96]`` to the logits of the tags and an empty embedding ``[N, 0]``."""

    def __init__(self, weights: PublishedWeights) -> None:
        super().__init__()
        self.spec_bn = nn.BatchNorm2d(1)
        for i, (inputs, outputs) in enumerate(itertools.pairwise(_CHANNELS), start=1):
            layer = nn.Module()
            layer.conv, layer.bn = nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs)
            self.add_module(f"layer{i}", layer)
        self.dense = nn.Linear(_CHANNELS[-1], len(weights.labels))
        # The arrays of the front end are those of :data:`.front_ends.FCN`.
        network = {name: array for name, array in weights.arrays.items() if not name.startswith("spec.")}
        PublishedWeights(network, weights.labels).load_into(self)

    def forward(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and an empty embedding."""
        x = self.spec_bn(windows.transpose(1, 2).unsqueeze(1))
        for i, pool in enumerate(_POOLS, start=1):
            layer = self.get_submodule(f"layer{i}")
            convolved = layer.get_submodule("bn")(layer.get_submodule("conv")(x))
            x = nn.functional.max_pool2d(torch.relu(convolved), pool)
        logits: Tensor = self.dense(x.flatten(1))
        return logits, logits[:, :0]
