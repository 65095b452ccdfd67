"""The wholetrack CRNN: convolutions that squeeze frequency to one, a GRU over time, pooling, one score per genre."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class CrnnShape:
    """Widths and pools of the network.

    Attributes:
        channels: of each convolution block.
        pool_bands: by how much each block divides the number of mel bands.
        pool_frames: by how much each block divides the number of frames.
        hidden: units of the GRU in each direction.
        dropout: before the last layer; a quarter of it behind each block.
    """

    channels: tuple[int, ...] = (24, 40, 64, 112, 160)
    pool_bands: tuple[int, ...] = (2, 2, 2, 4, 4)
    pool_frames: tuple[int, ...] = (1, 2, 1, 1, 1)
    hidden: int = 64
    dropout: float = 0.4


class SqueezeExcite(nn.Module):
    """Weighs channels by what the whole window sounds like (Hu et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // 8)
        self.excite = nn.Linear(channels // 8, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Scale ``[N, channels, bands, frames]`` by a gate in (0, 1) per channel."""
        gate = self.excite(nn.functional.silu(self.squeeze(x.mean((2, 3)))))
        return x * torch.sigmoid(gate)[:, :, None, None]


class AttentionPool(nn.Module):
    """Mean over time, weighted by what each moment has to say."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.score = nn.Linear(features, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, time, features]`` to ``[N, features]``."""
        weight = torch.softmax(self.score(x), dim=1)
        return (x * weight).sum(1)


class Crnn(nn.Module):
    """Windows ``[N, frames, n_mels]``, normalised, to logits ``[N, n_labels]``."""

    def __init__(self, shape: CrnnShape, *, n_mels: int, n_labels: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        inputs, bands = 1, n_mels
        for i, (channels, divide_bands, divide_frames) in enumerate(
            zip(shape.channels, shape.pool_bands, shape.pool_frames, strict=True)
        ):
            # The first block halves the bands by its stride: at full height it would cost more than all others.
            stride, pool = (
                ((divide_bands, 1), (1, divide_frames)) if i == 0 else ((1, 1), (divide_bands, divide_frames))
            )
            blocks += [
                nn.Conv2d(inputs, channels, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                nn.SiLU(),
                SqueezeExcite(channels) if i >= 2 else nn.Identity(),
                nn.MaxPool2d(pool) if pool != (1, 1) else nn.Identity(),
                nn.Dropout(shape.dropout / 4),
            ]
            inputs, bands = channels, bands // divide_bands
        self.blocks = nn.Sequential(*blocks)
        self.gru = nn.GRU(inputs * bands, shape.hidden, bidirectional=True, batch_first=True)
        self.attention = AttentionPool(2 * shape.hidden)
        self.dropout = nn.Dropout(shape.dropout)
        self.classify = nn.Linear(4 * shape.hidden, n_labels)

    def forward(self, windows: Tensor) -> Tensor:
        """Logits of each window."""
        x = windows.transpose(1, 2).unsqueeze(1)
        x = self.blocks(x.contiguous(memory_format=torch.channels_last))
        x = x.flatten(1, 2).transpose(1, 2)
        x, _ = self.gru(x.float())
        x = torch.cat((self.attention(x), x.mean(1)), dim=1)
        logits: Tensor = self.classify(self.dropout(x))
        return logits
