"""A network that classifies every step of a clip (deepsound 2016): convolutions over time, an LSTM, a softmax."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from wholetrack.contracts import FeatureSpec, RelativeToMax, Unchanged, WindowSpec
from wholetrack_training.systems.gtzan import GTZAN_AUDIO, MAX_PRECOMPUTED_S, gtzan_features
from wholetrack_training.systems.recipe import Source, window_frames
from wholetrack_training.systems.schedule import Schedule
from wholetrack_training.systems.sliced_recipe import SlicedRecipe

_WINDOW_S = 30.0
_FILTERS, _WIDTH, _LAYERS = 256, 5, 3
_DROPOUT = 0.5
_RANGE_DB = 80.0


class DeepsoundNetwork(nn.Module):
    """Maps windows ``[N, frames, n_mels]`` to the logits of every step, ``[N, frames // 8, n_labels]``.

    Args:
        n_mels: Bands of the windows.
        hidden: Units of the LSTM.
        log_range: Range in natural logarithms to which windows in [0, 1] are scaled, because the authors' input is
            logarithmic; 0 if the windows are logarithms already.
        n_labels: Number of genres.
    """

    def __init__(self, *, n_mels: int, hidden: int, log_range: float, n_labels: int) -> None:
        super().__init__()
        self.log_range = log_range
        layers: list[nn.Module] = []
        inputs = n_mels
        for _ in range(_LAYERS):
            layers += [nn.Conv1d(inputs, _FILTERS, _WIDTH, padding=_WIDTH // 2), nn.ReLU(), nn.MaxPool1d(2)]
            inputs = _FILTERS
        self.layers = nn.Sequential(*layers)
        self.lstm = nn.LSTM(inputs, hidden, batch_first=True)
        self.dropout = nn.Dropout(_DROPOUT)
        self.classify = nn.Linear(hidden, n_labels)

    def forward(self, windows: Tensor) -> Tensor:
        """Return the logits of each step, which depend on that step and the ones before it."""
        if self.log_range:
            windows = (windows - 0.5) * self.log_range
        x = self.layers(windows.transpose(1, 2)).transpose(1, 2).float()
        x, _ = self.lstm(self.dropout(x))
        logits: Tensor = self.classify(self.dropout(x))
        return logits


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepsoundCrnn(SlicedRecipe):
    """The whole clip as one sequence, RMSprop, no augmentation; the loss is computed on the mean over all steps.

    Attributes:
        hidden: Units of the LSTM.
        log_range: Range of a normalised window in natural logarithms; 0 if windows are not normalised.
    """

    system = "deepsound-crnn"
    summary = "Convolutions over time and an LSTM that classifies every step (deepsound 2016)"

    hidden: int = 256
    log_range: float = 0.0

    @property
    def min_frames(self) -> int:
        """Number of frames per step."""
        return int(2**_LAYERS)

    @classmethod
    def of(cls, source: Source, *, window_s: float | None = None) -> DeepsoundCrnn:
        """Return the published system: 646 frames for 30 s of audio, natural logarithm.

        Precomputed spectrograms have 377 frames in dB relative to the maximum.
        """
        if source is Source.PRECOMPUTED:
            features, log_range = gtzan_features(RelativeToMax(range_db=_RANGE_DB)), _RANGE_DB / 10 * math.log(10)
            length_s = min(window_s or _WINDOW_S, MAX_PRECOMPUTED_S)
        else:
            features, log_range, length_s = _FROM_AUDIO, 0.0, window_s or _WINDOW_S
        return cls(
            schedule=Schedule(
                optimiser="rmsprop", learning_rate=1e-4, rate="constant", epochs=100, patience=20, batch=32
            ),
            audio=GTZAN_AUDIO,
            features=features,
            windows=WindowSpec(
                window_s=length_s,
                hop_s=length_s,
                frames=window_frames(features, GTZAN_AUDIO, length_s),
                last_window="align_to_end",
            ),
            slice_hop_s=length_s,
            log_range=log_range,
        )

    def network(self, n_labels: int) -> DeepsoundNetwork:
        """Return a new CRNN."""
        return DeepsoundNetwork(
            n_mels=self.features.n_mels, hidden=self.hidden, log_range=self.log_range, n_labels=n_labels
        )

    def augmented(self, slices: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Return the slices normalised and otherwise unchanged."""
        del rng
        return self.normalised(slices)


_FROM_AUDIO = FeatureSpec(
    n_fft=2048, hop_length=1024, n_mels=128, fmin=0.0, fmax=11025.0, log="ln", floor=1e-10, normalisation=Unchanged()
)
