"""The music tower with one head for each tagger that teaches it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from wholetrack_training.systems.mobilenet import EMBEDDING
from wholetrack_training.systems.taggers.mn04 import Mn04
from wholetrack_training.systems.taggers.weights import read_weights
from wholetrack_training.systems.two_towers import MUSIC_TRUNK


class MusicStudent(nn.Module):
    """Starts as mn04, adapted to the features of the music tower, and learns to say what every tagger says.

    It keeps mn04's own head, so that what mn04 knows is not forgotten. The other heads are linear, so that what they
    need is in the embedding.
    """

    def __init__(self, weights: Path, lengths: Mapping[str, int]) -> None:
        """Build the network.

        Args:
            weights: File of mn04's published weights.
            lengths: Number of values to learn from each of the other taggers: its tags and its embedding.
        """
        super().__init__()
        self.mn04 = Mn04(read_weights(weights), MUSIC_TRUNK)
        self.heads = nn.ModuleDict({name: nn.Linear(EMBEDDING, length) for name, length in lengths.items()})

    def forward(self, windows: Tensor) -> dict[str, Tensor]:
        """Return what each tagger is expected to say of windows ``[N, 288, 112]``: ``[N, values]`` by name."""
        logits, embedding = self.mn04(windows)
        return {"mn04": torch.cat((logits, embedding), dim=1)} | {
            name: head(embedding) for name, head in self.heads.items()
        }
