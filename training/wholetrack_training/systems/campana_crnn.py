"""A CRNN on windows of 1 to 30 s without overlap, majority vote and top-K (Campana, Liturri, Padovano).

The network is that of Nasrullah and Zhao (2019). Every training track is used three times: unchanged, with its pitch
shifted, and with white noise. For recordings, librosa changes the audio; for precomputed spectrograms, the mel bands
are changed. The pitch factor and the noise factor are 1 in the paper, which we interpret as a semitone and as noise
20 dB below the music.
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
from wholetrack_training.systems.gtzan import GTZAN_AUDIO, MAX_PRECOMPUTED_S, gtzan_features
from wholetrack_training.systems.layers import as_image, as_sequence
from wholetrack_training.systems.recipe import Source, window_frames
from wholetrack_training.systems.schedule import Schedule
from wholetrack_training.systems.sliced_recipe import SlicedRecipe

_WINDOW_S = 3.0
_CHANNELS = (64, 128, 128, 128, 128)
_POOL_BANDS = (2, 4, 4, 4, 1)
_HIDDEN = 32
_DROPOUT, _DROPOUT_LAST = 0.1, 0.3
_NORMALISATION = RelativeToMax(range_db=80.0)


class CampanaNetwork(nn.Module):
    """Maps windows ``[N, frames, n_mels]`` to logits ``[N, n_labels]``."""

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
        """Return the logits of each window, from the last state of the second GRU."""
        x, _ = self.first(as_sequence(self.blocks(as_image(windows))))
        x, _ = self.second(x)
        logits: Tensor = self.classify(self.dropout(x[:, -1]))
        return logits


@dataclass(frozen=True, slots=True, kw_only=True)
class CampanaCrnn(SlicedRecipe):
    """Adam with a constant learning rate; early stopping after ten epochs without improvement.

    Attributes:
        pool_frames: Factor by which each block reduces the number of frames.
        versions: Augmented copies of every recording; empty for precomputed spectrograms.
        semitones: Pitch shift of a third of the slices of precomputed tracks.
        noise_db: Level of the noise in another third of these slices, relative to the music.
    """

    system = "campana-crnn"
    summary = "CRNN on windows of 1 to 30 s, majority vote (Campana, Liturri, Padovano)"

    pool_frames: tuple[int, ...]
    versions: tuple[str, ...] = ()
    semitones: float = 1.0
    noise_db: float = -20.0

    @property
    def min_frames(self) -> int:
        """Length in frames of the shortest window that leaves one frame after pooling."""
        return prod(self.pool_frames)

    @classmethod
    def of(cls, source: Source, *, window_s: float | None = None) -> CampanaCrnn:
        """Return the published system: 94 frames of 128 bands for 3 s of audio at 16 kHz.

        Precomputed spectrograms have 39 frames in 3 s, so the last block does not halve the number of frames.
        """
        length_s = window_s or _WINDOW_S
        if source is Source.PRECOMPUTED:
            length_s = min(length_s, MAX_PRECOMPUTED_S)
            audio, features = GTZAN_AUDIO, gtzan_features(_NORMALISATION)
            # As many steps reach the GRU as with the authors' input: two for 3 s, one for 1 s.
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
        """Return a new CRNN."""
        return CampanaNetwork(pool_frames=self.pool_frames, n_labels=n_labels)

    @property
    def audio_versions(self) -> tuple[str, ...]:
        """Both augmentations of :mod:`.audio_augmentation` for recordings, none for precomputed spectrograms."""
        return self.versions

    def augmented(self, slices: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Return slices of precomputed tracks at random unchanged, pitch shifted or with noise, normalised.

        One of the authors' epochs, with three versions of every slice, thus corresponds to three epochs here. Augmented
        copies of recordings are slices of their own and are only normalised.
        """
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
