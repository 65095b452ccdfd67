"""The music tower: the convolutions of MobileNetV3 with width 0.4, in the form of EfficientAT's ``mn04_as``.

Names of parameters are those of the published weights (Schmid et al. 2023, arXiv:2211.04772), so that they load without
renaming.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

_WIDTH = 0.4
_BATCH_NORM_EPS = 1e-3
EMBEDDING = 384
"""Channels of the last convolution."""


class _BlockShape(NamedTuple):
    """One inverted residual block: channels before the width is applied, kernel, activation and stride."""

    inputs: int
    kernel: int
    expanded: int
    outputs: int
    squeezed: int
    hard_swish: bool
    stride: int


# ``squeezed`` is the number of hidden units of squeeze-and-excitation, as published; 0 for blocks without it.
_BLOCKS = (
    _BlockShape(16, 3, 16, 16, 0, hard_swish=False, stride=1),
    _BlockShape(16, 3, 64, 24, 0, hard_swish=False, stride=2),
    _BlockShape(24, 3, 72, 24, 0, hard_swish=False, stride=1),
    _BlockShape(24, 5, 72, 40, 8, hard_swish=False, stride=2),
    _BlockShape(40, 5, 120, 40, 16, hard_swish=False, stride=1),
    _BlockShape(40, 5, 120, 40, 16, hard_swish=False, stride=1),
    _BlockShape(40, 3, 240, 80, 0, hard_swish=True, stride=2),
    _BlockShape(80, 3, 200, 80, 0, hard_swish=True, stride=1),
    _BlockShape(80, 3, 184, 80, 0, hard_swish=True, stride=1),
    _BlockShape(80, 3, 184, 80, 0, hard_swish=True, stride=1),
    _BlockShape(80, 3, 480, 112, 48, hard_swish=True, stride=1),
    _BlockShape(112, 3, 672, 112, 72, hard_swish=True, stride=1),
    _BlockShape(112, 5, 672, 160, 72, hard_swish=True, stride=2),
    _BlockShape(160, 5, 960, 160, 96, hard_swish=True, stride=1),
    _BlockShape(160, 5, 960, 160, 96, hard_swish=True, stride=1),
)


@dataclass(frozen=True, slots=True)
class TrunkShape:
    """How the published network is adapted.

    Attributes:
        first_stride: Stride of the first convolution over bands and over frames. With ``(2, 1)`` and half the frame
            rate, all later layers have the rate of the published network.
        seconds: Squeeze-and-excitation averages over each of this many equal parts of a window instead of over the
            whole window; 0 for the whole window. With one part per second, windows that start a whole second apart can
            share the activations.
    """

    first_stride: tuple[int, int] = (2, 2)
    seconds: int = 0


class MusicTrunk(nn.Module):
    """Maps log-mel images ``[N, 1, bands, frames]`` to ``[N, 384, bands / 32, steps]``."""

    def __init__(self, shape: TrunkShape) -> None:
        super().__init__()
        layers: list[nn.Module] = [_convolution(1, scaled(16), 3, stride=shape.first_stride, activation=nn.Hardswish)]
        layers += [_InvertedResidual(block, seconds=shape.seconds) for block in _BLOCKS]
        layers.append(_convolution(scaled(160), EMBEDDING, 1, activation=nn.Hardswish))
        self.features = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return the activations of the last convolution."""
        out: Tensor = self.features(x)
        return out


def scaled(channels: int) -> int:
    """Return a number of channels times the width, as a multiple of 8 and at least nine tenths of the product."""
    wanted = channels * _WIDTH
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


class _InvertedResidual(nn.Module):
    def __init__(self, shape: _BlockShape, *, seconds: int) -> None:
        super().__init__()
        inputs, expanded, outputs = scaled(shape.inputs), scaled(shape.expanded), scaled(shape.outputs)
        activation = nn.Hardswish if shape.hard_swish else nn.ReLU
        layers: list[nn.Module] = []
        if expanded != inputs:
            layers.append(_convolution(inputs, expanded, 1, activation=activation))
        stride = (shape.stride, shape.stride)
        layers.append(
            _convolution(expanded, expanded, shape.kernel, stride=stride, groups=expanded, activation=activation)
        )
        if shape.squeezed:
            layers.append(_ConcurrentSqueezeExcite(expanded, shape.squeezed, seconds=seconds))
        layers.append(_convolution(expanded, outputs, 1))
        self.block = nn.Sequential(*layers)
        self.is_residual = shape.stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block(x)
        return x + out if self.is_residual else out


class _ConcurrentSqueezeExcite(nn.Module):
    """Holds the only squeeze-and-excitation layer of a block, under its published name."""

    def __init__(self, channels: int, squeezed: int, *, seconds: int) -> None:
        super().__init__()
        self.conc_se_layers = nn.ModuleList([SqueezeExciteBySecond(channels, squeezed, seconds=seconds)])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conc_se_layers[0](x)
        return out


class SqueezeExciteBySecond(nn.Module):
    """Scales each channel by a gate that is computed from the means of all channels over a part of the window."""

    def __init__(self, channels: int, squeezed: int, *, seconds: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, squeezed)
        self.fc2 = nn.Linear(squeezed, channels)
        self.seconds = seconds

    def forward(self, x: Tensor) -> Tensor:
        """Scale ``[N, channels, bands, frames]``; the frames must divide into the parts without remainder."""
        bands, frames = x.shape[2:]
        parts = self.seconds or 1
        # onnxruntime computes this 10 % faster than means over two axes and a gate that is repeated for each frame.
        mean = nn.functional.avg_pool2d(x, (bands, frames // parts)).squeeze(2).transpose(1, 2)
        gate = self.fc2(nn.functional.relu(self.fc1(mean))).sigmoid().transpose(1, 2).unsqueeze(2)
        out: Tensor = x * (gate if parts == 1 else gate.repeat_interleave(frames // parts, dim=3))
        return out


def _convolution(
    inputs: int,
    outputs: int,
    kernel: int,
    *,
    stride: tuple[int, int] = (1, 1),
    groups: int = 1,
    activation: type[nn.Module] | None = None,
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=(kernel - 1) // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=_BATCH_NORM_EPS),
    ]
    return nn.Sequential(*layers, *([activation()] if activation else []))
