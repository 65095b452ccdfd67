"""A CRNN on windows of 30 to 1 s that do not overlap, majority vote and top-K (Campana, Liturri, Padovano).

The network is that of Nasrullah and Zhao (2019). Every training track comes three times: as it is, its pitch shifted,
and with white noise, from recordings by librosa and from precomputed spectrograms on their mel bands. Pitch factor and
noise factor are 1 in the paper, which we read as a semitone and as noise 20 dB below the music.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from wholetrack.contracts import AudioSpec, FeatureSpec, RelativeToMax, WindowSpec
from wholetrack_training.data.audio_augmentation import VERSIONS
from wholetrack_training.systems.augmentation import add_white_noise, shift_pitch
from wholetrack_training.systems.batches import SlicedRecipe
from wholetrack_training.systems.layers import as_image, as_sequence
from wholetrack_training.systems.recipe import (
    GTZAN_AUDIO,
    LONGEST_PRECOMPUTED_S,
    Schedule,
    Source,
    gtzan_features,
    window_frames,
)

_WINDOW_S = 3.0
_CHANNELS = (64, 128, 128, 128, 128)
_POOL_BANDS = (2, 4, 4, 4, 1)
_HIDDEN = 32
_DROPOUT, _DROPOUT_LAST = 0.1, 0.3
_NORMALISATION = RelativeToMax(range_db=80.0)


class CampanaNetwork(nn.Module):
    """Windows ``[N, frames, n_mels]`` to logits ``[N, n_labels]``."""

    def __init__(self, *, pool_frames: tuple[int, ...], n_labels: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        inputs = 1
        for channels, bands, frames in zip(_CHANNELS, _POOL_BANDS, pool_frames, strict=True):
            blocks += [
                nn.Conv2d(inputs, channels, 3, padding=1),
                nn.ELU(),
                nn.BatchNorm2d(channels),
                nn.MaxPool2d((bands, frames)),
                nn.Dropout(_DROPOUT),
            ]
            inputs = channels
        self.blocks = nn.Sequential(*blocks)
        self.first = nn.GRU(inputs, _HIDDEN, batch_first=True)
        self.second = nn.GRU(_HIDDEN, _HIDDEN, batch_first=True)
        self.dropout = nn.Dropout(_DROPOUT_LAST)
        self.classify = nn.Linear(_HIDDEN, n_labels)

    def forward(self, windows: Tensor) -> Tensor:
        """Logits of each window, from the second GRU's last state."""
        x, _ = self.first(as_sequence(self.blocks(as_image(windows))))
        x, _ = self.second(x)
        logits: Tensor = self.classify(self.dropout(x[:, -1]))
        return logits


@dataclass(frozen=True, slots=True, kw_only=True)
class CampanaCrnn(SlicedRecipe):
    """Adam at a constant rate, early stopping after ten epochs without improvement.

    Attributes:
        pool_frames: by how much each block divides the frames.
        versions: of every recording, where there are recordings.
        semitones: by how much the shifted third of precomputed tracks is shifted.
        noise_db: level of the noise in the noisy third of precomputed tracks, relative to the music.
    """

    system = "campana-crnn"
    summary = "CRNN on windows of 30 to 1 s, majority vote (Campana, Liturri, Padovano)"

    pool_frames: tuple[int, ...]
    versions: tuple[str, ...] = ()
    semitones: float = 1.0
    noise_db: float = -20.0

    @property
    def least_frames(self) -> int:
        """One after all pools."""
        return prod(self.pool_frames)

    @classmethod
    def of(cls, source: Source, *, window_s: float | None = None) -> CampanaCrnn:
        """94 frames of 128 bands at 16 kHz for 3 s; 39 precomputed, with one halving of time less."""
        length_s = window_s or _WINDOW_S
        if source is Source.PRECOMPUTED:
            length_s = min(length_s, LONGEST_PRECOMPUTED_S)
            audio, features = GTZAN_AUDIO, gtzan_features(_NORMALISATION)
            # As many steps reach the GRU as from the authors' input: two of 3 s, one of 1 s.
            pool_frames = (2, 2, 2, 2, 1) if length_s > 1 else (2, 2, 2, 1, 1)
        else:
            audio, features, pool_frames = AudioSpec(sample_rate=16000), _FROM_AUDIO, (2, 2, 2, 2, 2)
        return cls(
            schedule=Schedule(learning_rate=1e-3, rate="constant", epochs=100, patience=10, batch=64),
            audio=audio,
            features=features,
            windows=WindowSpec(
                window_s=length_s,
                hop_s=length_s,
                frames=window_frames(features, audio, length_s),
                last_window="drop",
            ),
            slice_hop_s=length_s,
            pool_frames=pool_frames,
            versions=() if source is Source.PRECOMPUTED else tuple(VERSIONS),
        )

    def network(self, n_labels: int) -> CampanaNetwork:
        """The CRNN."""
        return CampanaNetwork(pool_frames=self.pool_frames, n_labels=n_labels)

    @property
    def sound_versions(self) -> tuple[str, ...]:
        """Both, from recordings."""
        return self.versions

    def augmented(self, slices: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Of precomputed tracks a third as it is, a third shifted, a third noisy: in three epochs their one."""
        if self.versions:
            return self.normalised(slices)
        version = rng.integers(3, size=len(slices))
        shifted = shift_pitch(slices, self.semitones, self.features)
        noisy = add_white_noise(slices, self.noise_db)
        version = version[:, None, None]
        return self.normalised(np.where(version == 0, slices, np.where(version == 1, shifted, noisy)))


_FROM_AUDIO = FeatureSpec(
    n_fft=2048, hop_length=512, n_mels=128, fmin=0.0, fmax=8000.0, floor=1e-10, normalisation=_NORMALISATION
)
