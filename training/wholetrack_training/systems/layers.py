"""Layers that several of the networks share."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from the means of all channels (Hu et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // 8)
        self.excite = nn.Linear(channels // 8, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Scale ``[N, channels, bands, frames]`` by a gate in (0, 1) per channel."""
        gate = self.excite(nn.functional.silu(self.squeeze(x.mean((2, 3)))))
        return x * torch.sigmoid(gate)[:, :, None, None]


class AttentionPool(nn.Module):
    """Mean over time with learned weights."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.score = nn.Linear(features, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Pool ``[N, time, features]`` to ``[N, features]``."""
        weight = torch.softmax(self.score(x), dim=1)
        return (x * weight).sum(1)


def as_image(windows: Tensor) -> Tensor:
    """Return windows ``[N, frames, n_mels]`` as images with one channel, ``[N, 1, n_mels, frames]``."""
    return windows.transpose(1, 2).unsqueeze(1).contiguous(memory_format=torch.channels_last)


def as_sequence(x: Tensor) -> Tensor:
    """Return ``[N, channels, bands, frames]`` as a sequence ``[N, frames, channels * bands]`` in float32."""
    return x.flatten(1, 2).transpose(1, 2).float()


def pooled(length: int, pools: tuple[int, ...]) -> int:
    """Return the length of an axis after max pooling; each pool drops an incomplete remainder."""
    for pool in pools:
        length //= pool
    return length
