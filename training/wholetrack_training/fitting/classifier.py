"""A PyTorch network as a function on arrays."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wholetrack_training.fitting.evaluation import Classify


def classifier(network: nn.Module) -> Classify:
    """Return a function from normalised windows to probabilities that runs the network in float32."""

    def classify(windows: NDArray[np.float32]) -> NDArray[np.float32]:
        network.eval()
        with torch.inference_mode():
            logits = network(torch.from_numpy(windows))
        probabilities: NDArray[np.float32] = torch.softmax(logits, dim=-1).numpy()
        return probabilities

    return classify
