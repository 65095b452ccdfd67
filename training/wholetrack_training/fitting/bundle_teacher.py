"""A published network as the teacher of one with other windows or another normalisation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from wholetrack.contracts import Rows, Unchanged
from wholetrack.features.normalise import normalise
from wholetrack.inference.bundle import Bundle
from wholetrack.inference.session import open_session
from wholetrack.settings import DeviceChoice, Settings
from wholetrack_training.errors import RecipeError
from wholetrack_training.systems.recipe import Recipe

_SMALLEST = 1e-7


class BundleTeacher(nn.Module):
    """Maps the batches of a recipe to the logits of a published network.

    Args:
        bundle: The published network.
        recipe: The recipe of the student, whose frames are not normalised.
        labels: The genres of the student.
        test: Names of the tracks that the student is evaluated on.

    Raises:
        RecipeError: If the network has other genres, other features or other windows, or has seen a test track.
    """

    def __init__(self, bundle: Bundle, recipe: Recipe, *, labels: Sequence[str], test: Sequence[str]) -> None:
        super().__init__()
        card = bundle.card
        taught, own = card.single_input.features, recipe.features
        unlike = {
            "genres": card.labels != tuple(labels),
            "features": own.model_copy(update={"normalisation": taught.normalisation}) != taught,
            "normalisation": not isinstance(own.normalisation, Unchanged),
            "length of windows": card.windows_of(card.single_input).frames != recipe.windows.frames,
        }
        if different := [what for what, differs in unlike.items() if differs]:
            raise RecipeError(f"{card.name} {card.version} cannot teach {recipe.system}: different {different[0]}")
        if seen := set(test) - set(card.trained_on.get("never_seen", ())):
            raise RecipeError(f"{card.name} {card.version} cannot teach: it may have seen {len(seen)} test tracks")
        self.sha256 = card.sha256
        self._normalisation = taught.normalisation
        self._frames = recipe.windows.frames
        self._hop = max(1, round(recipe.windows.hop_s * own.frame_rate(recipe.audio.sample_rate)))
        self._session = open_session(bundle, Settings(device=DeviceChoice.CPU))

    def forward(self, stretches: Tensor) -> Tensor:
        """Return the logits of all windows of stretches ``[N, n_frames, n_mels]``, one stretch after the other."""
        windows = stretches.unfold(1, self._frames, self._hop).flatten(0, 1).transpose(1, 2).contiguous().numpy()
        rows = Rows.of(normalise(windows, self._normalisation))
        size = self._session.max_batch
        runs = [self._session.run(rows[first : first + size]) for first in range(0, len(rows), size)]
        return torch.from_numpy(np.log(np.maximum(Rows.joined(runs).arrays[0], _SMALLEST)))
