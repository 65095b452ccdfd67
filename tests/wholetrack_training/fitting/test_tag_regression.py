"""Ridge regression as the weights of a layer."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

import torch
from torch import nn

from wholetrack_training.fitting.tag_regression import determination, fit_ridge

pytestmark = pytest.mark.torch


def test_a_linear_relation_is_found_whatever_the_scale_of_the_inputs(rng: np.random.Generator) -> None:
    inputs = (rng.normal(size=(500, 4)) * [1, 10, 100, 0.1] + [0, 5, -50, 1]).astype(np.float32)
    targets = (inputs @ np.array([[1.0], [0.2], [0.03], [-4.0]]) + 7).astype(np.float32)
    layer = nn.Linear(4, 1)
    fit_ridge(layer, inputs, targets, penalty=1e-4)
    with torch.inference_mode():
        found = layer(torch.from_numpy(inputs)).numpy()
    assert determination(found, targets) > 0.999


def test_noise_is_not_learned(rng: np.random.Generator) -> None:
    inputs, targets = rng.normal(size=(60, 50)).astype(np.float32), rng.normal(size=(60, 1)).astype(np.float32)
    weak, strong = nn.Linear(50, 1), nn.Linear(50, 1)
    fit_ridge(weak, inputs, targets, penalty=1e-6)
    fit_ridge(strong, inputs, targets, penalty=10.0)
    assert strong.weight.norm() < 0.2 * weak.weight.norm()
    assert strong.bias.item() == pytest.approx(targets.mean(), abs=0.1)
