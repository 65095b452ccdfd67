"""Divide and conquer (Hilsdorf 2023): a CRNN on 3 s slices whose raw class scores are summed over the track.

The article gives the structure (convolutions and max pooling reduce the frequency axis to one and keep the time axis,
then a GRU, after Choi et al. 2017) and the size, about 400,000 parameters. The widths below are ours and result in
398,000.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from wholetrack.contracts import FeatureSpec, MinMax, WindowSpec
from wholetrack_training.systems.gtzan import GTZAN_AUDIO, MAX_PRECOMPUTED_S, gtzan_features
from wholetrack_training.systems.layers import as_image, as_sequence, pooled
from wholetrack_training.systems.recipe import Source, window_frames
from wholetrack_training.systems.schedule import Schedule
from wholetrack_training.systems.sliced_recipe import SlicedRecipe

_WINDOW_S, _SLICE_HOP_S, _TRACK_HOP_S = 3.0, 2.0, 1.0
_CHANNELS = (32, 64, 128, 128)
_HIDDEN = 168
_DROPOUT = 0.25
# non_zero_min_max of SLAPP, on dB values from librosa with its top_db of 80.
_MIN_MAX = MinMax(range_db=80.0, low=0.001, high=1.001)


class HilsdorfNetwork(nn.Module):
    """Maps windows ``[N, frames, n_mels]`` to logits ``[N, n_labels]``; only the bands are pooled."""

    def __init__(self, *, pools: tuple[int, ...], n_mels: int, n_labels: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        inputs = 1
        for channels, pool in zip(_CHANNELS, pools, strict=True):
            blocks += [
                nn.Conv2d(inputs, channels, 3, padding=1),
                nn.BatchNorm2d(channels),
                nn.ELU(),
                nn.MaxPool2d((pool, 1)),
                nn.Dropout(_DROPOUT),
            ]
            inputs = channels
        self.blocks = nn.Sequential(*blocks)
        self.gru = nn.GRU(inputs * pooled(n_mels, pools), _HIDDEN, batch_first=True)
        self.classify = nn.Linear(_HIDDEN, n_labels)

    def forward(self, windows: Tensor) -> Tensor:
        """Return the logits of each window, from the last state of the GRU."""
        x, _ = self.gru(as_sequence(self.blocks(as_image(windows))))
        logits: Tensor = self.classify(x[:, -1])
        return logits


@dataclass(frozen=True, slots=True, kw_only=True)
class HilsdorfCrnn(SlicedRecipe):
    """14 slices per track that overlap by 1 s, Adam, early stopping; a track is classified every second.

    Attributes:
        pools: Factor by which each block reduces the number of bands; their product is the number of bands.
    """

    system = "hilsdorf-crnn"
    summary = "Divide-and-conquer CRNN, summed scores (Hilsdorf 2023)"

    pools: tuple[int, ...]

    @classmethod
    def of(cls, source: Source, *, window_s: float | None = None) -> HilsdorfCrnn:
        """Return the published system: windows of 130 x 100 values from audio, 39 x 128 precomputed.

        The 30 s variant has one window per clip.
        """
        length_s = window_s or _WINDOW_S
        if source is Source.PRECOMPUTED:
            length_s = min(length_s, MAX_PRECOMPUTED_S)
            features, pools = gtzan_features(_MIN_MAX), (4, 4, 4, 2)
        else:
            features, pools = _FROM_AUDIO, (2, 5, 5, 2)
        assert prod(pools) == features.n_mels
        return cls(
            schedule=Schedule(learning_rate=1e-4, rate="plateau", epochs=100, patience=10, batch=32),
            audio=GTZAN_AUDIO,
            features=features,
            windows=WindowSpec(
                window_s=length_s,
                hop_s=min(_TRACK_HOP_S, length_s),
                frames=window_frames(features, GTZAN_AUDIO, length_s),
                last_window="drop",
            ),
            pools=pools,
            slice_hop_s=min(_SLICE_HOP_S, length_s),
        )

    def network(self, n_labels: int) -> HilsdorfNetwork:
        """Return a new CRNN."""
        return HilsdorfNetwork(pools=self.pools, n_mels=self.features.n_mels, n_labels=n_labels)

    def augmented(self, slices: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Return the slices normalised and otherwise unchanged; their overlap is the only augmentation."""
        del rng
        return self.normalised(slices)


_FROM_AUDIO = FeatureSpec(
    n_fft=2048, hop_length=512, n_mels=100, fmin=0.0, fmax=11025.0, floor=1e-10, normalisation=_MIN_MAX
)
