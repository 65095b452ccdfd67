"""Random weights in the published form of mn04."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from wholetrack_training.systems.mobilenet import MusicTrunk, TrunkShape


def write_mn04(folder: Path, *, n_labels: int, labels: Sequence[str] = ()) -> Path:
    """Write ``mn04.npz`` and return its path; without labels, they are numbered."""
    torch.manual_seed(0)
    network = nn.Module()
    network.features = MusicTrunk(TrunkShape()).features
    network.classifier = nn.ModuleDict({"2": nn.Linear(384, 512), "5": nn.Linear(512, n_labels)})
    path = folder / "mn04.npz"
    names = np.array(labels or [f"tag {i}" for i in range(n_labels)])
    np.savez(path, **{name: value.numpy() for name, value in network.state_dict().items()}, labels=names)
    return path
