"""Ridge regression of what taggers say on a tower's output, as weights of a linear layer."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

_MIN_DEVIATION = 1e-3


def fit_ridge(
    layer: nn.Linear, inputs: NDArray[np.float32], targets: NDArray[np.float32], *, penalty: float = 0.05
) -> None:
    """Set the weights of a linear layer to those of a ridge regression.

    Args:
        layer: The layer.
        inputs: Its inputs, ``[N, in_features]``.
        targets: What it should return, ``[N, out_features]``.
        penalty: Penalty of the squared weights of standardised inputs, relative to the mean squared error.
    """
    mean, deviation = inputs.mean(0, dtype=np.float64), inputs.std(0, dtype=np.float64) + _MIN_DEVIATION
    x = (inputs - mean) / deviation
    offset = targets.mean(0, dtype=np.float64)
    gram = x.T @ x / len(x) + penalty * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, x.T @ (targets - offset) / len(x)) / deviation[:, None]
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weights.T))
        layer.bias.copy_(torch.from_numpy(offset - mean @ weights))


def determination(found: NDArray[np.float32], targets: NDArray[np.float32]) -> float:
    """Return the share of the variance of the targets that is explained, over all columns."""
    return float(1 - np.square(found - targets).mean() / targets.var())
