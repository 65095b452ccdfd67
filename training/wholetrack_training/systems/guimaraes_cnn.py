"""A plain CNN on 1.5 s windows that overlap by half, with flip and cutout, and majority vote (Guimaraes 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from wholetrack.contracts import FeatureSpec, RelativeToMax, WindowSpec
from wholetrack_training.systems.gtzan import GTZAN_AUDIO, gtzan_features
from wholetrack_training.systems.layers import as_image, pooled
from wholetrack_training.systems.recipe import Source, window_frames
from wholetrack_training.systems.schedule import Schedule
from wholetrack_training.systems.sliced_recipe import SlicedRecipe

_WINDOW_S, _OVERLAP = 1.5, 0.5
_CHANNELS = (16, 32, 64, 128, 256)
_DENSE = 512
_DROPOUT, _DROPOUT_FLAT = 0.25, 0.5
_CUT_BANDS, _CUT_FRAMES = 3, 4
_NORMALISATION = RelativeToMax(range_db=80.0)


class GuimaraesNetwork(nn.Module):
    """Maps windows ``[N, frames, n_mels]`` to logits ``[N, n_labels]``."""

    def __init__(
        self, *, pool_bands: tuple[int, ...], pool_frames: tuple[int, ...], size: tuple[int, int], n_labels: int
    ) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        inputs = 1
        for channels, bands, frames in zip(_CHANNELS, pool_bands, pool_frames, strict=True):
            blocks += [
                nn.Conv2d(inputs, channels, 3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d((bands, frames)),
                nn.Dropout(_DROPOUT),
            ]
            inputs = channels
        self.blocks = nn.Sequential(*blocks)
        n_frames, n_mels = size
        self.classify = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(_DROPOUT_FLAT),
            nn.Linear(inputs * pooled(n_mels, pool_bands) * pooled(n_frames, pool_frames), _DENSE),
            nn.ReLU(),
            nn.Dropout(_DROPOUT),
            nn.Linear(_DENSE, n_labels),
        )

    def forward(self, windows: Tensor) -> Tensor:
        """Return the logits of each window."""
        logits: Tensor = self.classify(self.blocks(as_image(windows)))
        return logits


@dataclass(frozen=True, slots=True, kw_only=True)
class GuimaraesCnn(SlicedRecipe):
    """Flip in time and cutout, each with probability 0.5; Adam, learning rate reduced on a plateau.

    Attributes:
        pool_bands: Factor by which each block reduces the number of bands.
        pool_frames: Factor by which each block reduces the number of frames.
        flip: Probability that a window is reversed in time.
        cutout: Probability that three bands and four frames of a window are set to the floor.
    """

    system = "guimaraes-cnn"
    summary = "Plain CNN on 1.5 s windows, majority vote (Guimaraes 2018)"

    pool_bands: tuple[int, ...] = (2, 2, 2, 2, 2)
    pool_frames: tuple[int, ...]
    flip: float = 0.5
    cutout: float = 0.5

    @property
    def min_frames(self) -> int:
        """Length in frames of the shortest window that leaves one frame after pooling."""
        return prod(self.pool_frames)

    @classmethod
    def of(cls, source: Source, *, window_s: float | None = None) -> GuimaraesCnn:
        """Return the published system: 130 frames of 128 bands from audio.

        Precomputed spectrograms have 20 frames, so the fifth pool does not reduce them.
        """
        length_s = window_s or _WINDOW_S
        if source is Source.PRECOMPUTED:
            features, pool_frames = gtzan_features(_NORMALISATION), (2, 2, 2, 2, 1)
        else:
            features, pool_frames = _FROM_AUDIO, (2, 2, 2, 2, 2)
        return cls(
            schedule=Schedule(learning_rate=1e-3, rate="plateau", epochs=150, patience=20, batch=128),
            audio=GTZAN_AUDIO,
            features=features,
            windows=WindowSpec(
                window_s=length_s,
                hop_s=length_s * _OVERLAP,
                frames=window_frames(features, GTZAN_AUDIO, length_s),
                last_window="drop",
            ),
            slice_hop_s=length_s * _OVERLAP,
            pool_frames=pool_frames,
        )

    def network(self, n_labels: int) -> GuimaraesNetwork:
        """Return a new CNN."""
        return GuimaraesNetwork(
            pool_bands=self.pool_bands,
            pool_frames=self.pool_frames,
            size=(self.windows.frames, self.features.n_mels),
            n_labels=n_labels,
        )

    def augmented(self, slices: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Return the slices normalised, some of them flipped or with cutout."""
        return cut_out(flip_time(self.normalised(slices), self.flip, rng), self.cutout, rng)


def flip_time(windows: NDArray[np.float32], probability: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Reverse each window ``[N, frames, n_mels]`` in time with a probability."""
    flipped = rng.random(len(windows)) < probability
    return np.where(flipped[:, None, None], windows[:, ::-1], windows)


def cut_out(windows: NDArray[np.float32], probability: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Set three random bands and four random frames of each normalised window to zero with a probability."""
    n_windows, n_frames, n_mels = windows.shape
    chosen = np.flatnonzero(rng.random(n_windows) < probability)
    changed = windows.copy()
    changed[chosen[:, None], :, rng.integers(n_mels, size=(len(chosen), _CUT_BANDS))] = 0.0
    changed[chosen[:, None], rng.integers(n_frames, size=(len(chosen), _CUT_FRAMES))] = 0.0
    return changed


_FROM_AUDIO = FeatureSpec(
    n_fft=1024, hop_length=256, n_mels=128, fmin=0.0, fmax=11025.0, floor=1e-10, normalisation=_NORMALISATION
)
