"""mn04_as of EfficientAT: a MobileNetV3 of width 0.4, trained on the 527 classes of AudioSet."""

from __future__ import annotations

from torch import Tensor, nn

from wholetrack_training.systems.mobilenet import EMBEDDING, MusicTrunk, TrunkShape
from wholetrack_training.systems.taggers.weights import PublishedWeights

_HIDDEN = 512
FRAMES = 300
"""Frames of a 3 s window."""


class Mn04(nn.Module):
    """Maps windows ``[N, 300, 128]`` to the logits of all classes and the embedding ``[N, 384]``."""

    def __init__(self, weights: PublishedWeights, shape: TrunkShape | None = None) -> None:
        """Build the network.

        Args:
            weights: The published weights.
            shape: How the trunk is adapted; None for the published form.
        """
        super().__init__()
        trunk = MusicTrunk(shape or TrunkShape())
        self.features = trunk.features
        self.classifier = nn.ModuleDict(
            {"2": nn.Linear(EMBEDDING, _HIDDEN), "5": nn.Linear(_HIDDEN, len(weights.labels))}
        )
        weights.load_into(self)

    def classify(self, embedding: Tensor) -> Tensor:
        """Return the logits for an embedding."""
        logits: Tensor = self.classifier["5"](nn.functional.hardswish(self.classifier["2"](embedding)))
        return logits

    def forward(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and embedding."""
        embedding = self.features(windows.transpose(1, 2).unsqueeze(1)).mean((2, 3))
        return self.classify(embedding), embedding
