"""MSD_musicnn (Pons and Serra 2019): convolutions whose shapes follow timbre and rhythm, 50 tags.

Transfers the published TensorFlow weights; the order of layers, and of the features before the dense layers, is that of
the published graph.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wholetrack_training.systems.taggers.weights import PublishedWeights

FRAMES = 187
"""Frames of a 3 s window."""

_EPS = 1e-3
_N_TIMBRE = 2
_N_FRONT = 5


class Musicnn(nn.Module):
    """Maps windows ``[N, 187, 96]`` to the logits of the tags and the penultimate layer ``[N, 200]``."""

    def __init__(self, weights: PublishedWeights) -> None:
        super().__init__()
        norms = 1 + max(
            int(name.split("/")[0].rsplit("_", 1)[1])
            for name in weights.arrays
            if name.startswith("batch_normalization_")
        )
        self.norms = nn.ModuleList([_batch_norm(weights, i) for i in range(norms)])
        convolutions = [_convolution(weights, i) for i in range(8)]
        self.convolutions = nn.ModuleList(convolutions)
        self.kernels = [convolution.kernel_size[0] for convolution in convolutions]
        self.penultimate, self.tags = _dense(weights, "dense"), _dense(weights, "dense_1")

    def forward(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and penultimate layer."""
        n, frames, bands = windows.shape
        x = self.norms[0](windows.reshape(n, 1, -1)).reshape(n, 1, frames, bands)
        front = torch.cat([self._front(x, i) for i in range(_N_FRONT)], dim=1)
        first = self._middle(front, 5)
        second = self._middle(first, 6) + first
        third = self._middle(second, 7) + second
        features = torch.cat((front, first, second, third), dim=1)
        # Maximum and mean of each feature lie next to each other in the published weights.
        pooled = torch.stack((features.amax(2), features.mean(2)), dim=2).flatten(1)
        hidden = self.norms[10](torch.relu(self.penultimate(self.norms[9](pooled))))
        return self.tags(hidden), hidden

    def _front(self, x: Tensor, index: int) -> Tensor:
        convolution = self.convolutions[index]
        kernel = self.kernels[index]
        # Timbre filters get three frames of padding; the rhythm filters have even lengths, padded as TensorFlow does.
        before, after = (3, 3) if index < _N_TIMBRE else ((kernel - 1) // 2, kernel // 2)
        out: Tensor = torch.relu(convolution(nn.functional.pad(x, (0, 0, before, after))))
        n, channels, frames, bands = out.shape
        # The normalisation precedes the maximum: its gain may be negative.
        normalised: Tensor = self.norms[index + 1](out.flatten(2))
        return normalised.reshape(n, channels, frames, bands).amax(3)

    def _middle(self, x: Tensor, index: int) -> Tensor:
        padded = nn.functional.pad(x, (3, 3)).transpose(1, 2).unsqueeze(1)
        out: Tensor = self.norms[index + 1](torch.relu(self.convolutions[index](padded)).squeeze(3))
        return out


def _batch_norm(weights: PublishedWeights, index: int) -> nn.BatchNorm1d:
    name = f"batch_normalization_{index}" if index else "batch_normalization"
    norm = nn.BatchNorm1d(len(weights.arrays[f"{name}/gamma"]), eps=_EPS)
    norm.load_state_dict(
        {
            "weight": weights.tensor(f"{name}/gamma"),
            "bias": weights.tensor(f"{name}/beta"),
            "running_mean": weights.tensor(f"{name}/moving_mean"),
            "running_var": weights.tensor(f"{name}/moving_variance"),
            "num_batches_tracked": torch.tensor(0),
        }
    )
    return norm


def _convolution(weights: PublishedWeights, index: int) -> nn.Conv2d:
    name = f"conv2d_{index}" if index else "conv2d"
    # TensorFlow: [height, width, inputs, outputs].
    kernel = weights.tensor(f"{name}/kernel").permute(3, 2, 0, 1).contiguous()
    convolution = nn.Conv2d(kernel.shape[1], kernel.shape[0], (kernel.shape[2], kernel.shape[3]))
    convolution.load_state_dict({"weight": kernel, "bias": weights.tensor(f"{name}/bias")})
    return convolution


def _dense(weights: PublishedWeights, name: str) -> nn.Linear:
    kernel = weights.tensor(f"{name}/kernel").T.contiguous()
    dense = nn.Linear(kernel.shape[1], kernel.shape[0])
    dense.load_state_dict({"weight": kernel, "bias": weights.tensor(f"{name}/bias")})
    return dense
