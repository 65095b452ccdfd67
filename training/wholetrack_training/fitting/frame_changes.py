"""Random changes of precomputed spectrograms on a device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameChanges:
    """How strongly windows are changed; zero switches a change off.

    Attributes:
        equaliser_db: Standard deviation of a smooth random curve over the bands.
        mask_bands: Largest number of adjacent bands that are set to the floor.
        mask_frames: Largest number of adjacent frames that are set to the floor.
        mixup: Parameter of the beta distribution from which the share of a second window is drawn (Zhang 2018).
    """

    equaliser_db: float = 4.0
    mask_bands: int = 16
    mask_frames: int = 6
    mixup: float = 0.4


_KNOTS = 6


def changed_levels(frames: Tensor, changes: FrameChanges) -> Tensor:
    """Equalise windows in dB, ``[N, frames, n_mels]``."""
    knots = torch.randn(len(frames), 1, _KNOTS, device=frames.device) * changes.equaliser_db
    curve = nn.functional.interpolate(knots, size=frames.shape[2], mode="linear", align_corners=True)
    return frames + curve


def masked(windows: Tensor, changes: FrameChanges) -> Tensor:
    """Set adjacent bands and frames of normalised windows to zero, ``[N, frames, n_mels]``."""
    return windows * _kept(windows, 1, changes.mask_frames)[:, :, None] * _kept(windows, 2, changes.mask_bands)[:, None]


def mixed(changes: FrameChanges, *values: Tensor) -> tuple[Tensor, ...]:
    """Mix every item of some tensors ``[N, ...]`` with another one, by the same share."""
    n, device = len(values[0]), values[0].device
    drawn = torch.distributions.Beta(changes.mixup, changes.mixup).sample((n,)).to(device)
    share, other = torch.maximum(drawn, 1 - drawn), torch.randperm(n, device=device)
    out = []
    for value in values:
        own = share.reshape(-1, *[1] * (value.dim() - 1))
        out.append(value * own + value[other] * (1 - own))
    return tuple(out)


def _kept(windows: Tensor, axis: int, longest: int) -> Tensor:
    n, length = len(windows), windows.shape[axis]
    width = torch.randint(longest + 1, (n, 1), device=windows.device)
    first = (torch.rand(n, 1, device=windows.device) * (length - width + 1)).long()
    at = torch.arange(length, device=windows.device)
    return ((at < first) | (at >= first + width)).to(windows.dtype)
