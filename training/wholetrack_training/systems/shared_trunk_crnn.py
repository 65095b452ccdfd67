"""A CRNN whose convolutions can run once over a whole track, because no window affects them.

Windows of 3 s that start every second overlap by two thirds, so that a network that classifies each window by itself
computes most of its convolutions three times. Here everything before the recurrent layer depends on a few neighbouring
frames only: convolutions without padding in time, and levels relative to the maximum of five frames instead of the
maximum of the window. What a window yields is therefore a slice of what the track yields.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wholetrack.contracts import RelativeToMax, Unchanged, WindowSpec
from wholetrack.features.normalise import normalise
from wholetrack_training.data.tracks import TrackSet
from wholetrack_training.systems.augmentation import (
    Augmentation,
    degrade,
    mask,
    mix_style,
    mix_up,
    random_eq,
    random_window,
)
from wholetrack_training.systems.gtzan import GTZAN_AUDIO, gtzan_features
from wholetrack_training.systems.layers import AttentionPool, as_image
from wholetrack_training.systems.outliers import outlier_frames
from wholetrack_training.systems.recipe import Batch, Recipe, Source, window_frames
from wholetrack_training.systems.schedule import Schedule
from wholetrack_training.systems.sliced_recipe import one_hot

_KERNEL = 3
# The precomputed spectrograms end 80 dB below the maximum of their clip.
_TRAINING_RANGE = RelativeToMax(range_db=80.0)


@dataclass(frozen=True, slots=True)
class SharedTrunkShape:
    """Layer sizes and options of the network.

    Attributes:
        channels: Channels of each convolution block. Multiples of 16 fill the vector registers of all processors.
        pool_bands: Factor by which each block reduces the number of mel bands; their product is the number of bands.
        dilation: Distance in frames between the taps of each convolution.
        level_frames: Number of frames whose maximum is the reference of their levels; odd.
        range_db: Levels are clipped this far below the reference.
        step_frames: Distance in frames between the steps of the recurrent layer. The last of them to be computed is
            the maximum of as many frames.
        hidden: Units of the GRU in each direction.
        dropout: Dropout before the last layer; a quarter of it after each block.
        masked_top_bands: Replace this many of the highest bands by the band below them, as wholetrack-crnn does.
    """

    channels: tuple[int, ...] = (16, 32, 64, 128, 160)
    pool_bands: tuple[int, ...] = (2, 2, 4, 2, 4)
    dilation: tuple[int, ...] = (1, 1, 2, 2, 1)
    level_frames: int = 5
    range_db: float = 60.0
    step_frames: int = 2
    hidden: int = 64
    dropout: float = 0.4
    masked_top_bands: int = 6

    @property
    def context(self) -> int:
        """Number of frames by which the output of the trunk is shorter than its input."""
        taps = (_KERNEL - 1) * sum(self.dilation)
        return (self.level_frames - 1) + (self.step_frames - 1) + taps


class SharedTrunkCrnn(nn.Module):
    """Maps stretches of frames in dB to the logits of the windows in them.

    Args:
        shape: Layer sizes and options.
        frames: Frames per window.
        hop: Distance in frames between the windows of a stretch that is longer than a window.
        n_mels: Mel bands per frame.
        n_labels: Number of genres.
    """

    steps: Tensor

    def __init__(self, shape: SharedTrunkShape, *, frames: int, hop: int, n_mels: int, n_labels: int) -> None:
        super().__init__()
        self.shape, self.frames, self.hop = shape, frames, hop
        blocks: list[nn.Module] = []
        inputs, bands = 1, n_mels
        for i, (channels, pool_bands, dilation) in enumerate(
            zip(shape.channels, shape.pool_bands, shape.dilation, strict=True)
        ):
            # As in wholetrack-crnn, the first block halves the bands with its stride, and the second one is the one
            # that reduces the frames. Here it does so without a stride, because windows start at any frame.
            stride, pool = (pool_bands, 1) if i == 0 else (1, pool_bands)
            pool_frames = shape.step_frames if i == 1 else 1
            blocks += [
                nn.Conv2d(
                    inputs,
                    channels,
                    _KERNEL,
                    stride=(stride, 1),
                    padding=(_KERNEL // 2, 0),
                    dilation=(1, dilation),
                    bias=False,
                ),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
                nn.MaxPool2d((pool, pool_frames), stride=(pool, 1)) if (pool, pool_frames) != (1, 1) else nn.Identity(),
                nn.Dropout(shape.dropout / 4),
            ]
            inputs, bands = channels, bands // pool_bands
        self.blocks = nn.Sequential(*blocks)
        features = inputs * bands
        self.gru = nn.GRU(features + 1, shape.hidden, bidirectional=True, batch_first=True)
        self.attention = AttentionPool(2 * shape.hidden)
        self.dropout = nn.Dropout(shape.dropout)
        self.classify = nn.Linear(4 * shape.hidden + 2 * features, n_labels)
        self.register_buffer("steps", torch.arange(0, frames - shape.context, shape.step_frames), persistent=False)

    def forward(self, stretches: Tensor) -> Tensor:
        """Return the logits of the windows of each stretch, one after the other.

        Args:
            stretches: ``[N, n_frames, n_mels]``, in dB.

        Returns:
            ``[N * windows, n_labels]``; there is one window per stretch if ``n_frames`` is the length of a window.
        """
        trunk = self.trunk(stretches)
        if stretches.shape[1] == self.frames:
            return self.head(trunk[:, :: self.shape.step_frames])
        starts = torch.arange(0, stretches.shape[1] - self.frames + 1, self.hop)
        return self.head(trunk[:, starts[:, None] + self.steps].flatten(0, 1))

    def trunk(self, stretches: Tensor) -> Tensor:
        """Return what all windows share.

        Args:
            stretches: ``[N, n_frames, n_mels]``, in dB.

        Returns:
            ``[N, n_frames - context, features + 1]``; the last feature is the reference of the levels, in units of
            the range. A window that starts at frame ``f`` consists of the rows ``f + steps``.
        """
        shape = self.shape
        x = as_image(stretches)
        if shape.masked_top_bands:
            kept = x[:, :, : -shape.masked_top_bands]
            # Not expand, which would be exported with a shape that is computed at run time, on the CPU.
            x = torch.cat((kept, *(kept[:, :, -1:],) * shape.masked_top_bands), dim=2)
        # A gain adds the same to all levels, so that it has no effect on what is relative to their maximum.
        reference = nn.functional.max_pool2d(x, (x.shape[2], shape.level_frames), stride=1)
        x = ((_cropped(x, shape.level_frames - 1) - reference) / shape.range_db + 1.0).clamp(min=0.0)
        x = self.blocks(x).flatten(1, 2)
        level = _cropped(reference[:, 0], shape.context - (shape.level_frames - 1)) / shape.range_db
        return torch.cat((x.float(), level.float()), dim=1).transpose(1, 2)

    def head(self, steps: Tensor) -> Tensor:
        """Return the logits of windows, ``[N, n_labels]``, from their rows of the trunk, ``[N, steps, features + 1]``.

        The level of each step relative to the loudest one of the window restores what the trunk has removed.
        """
        features, level = steps[..., :-1], steps[..., -1:]
        relative = (level - level.amax(1, keepdim=True) + 1.0).clamp(min=0.0)
        sequence = self.gru(torch.cat((features, relative), dim=2))[0]
        mean = features.mean(1)
        deviation = ((features - mean[:, None]).square().mean(1) + 1e-5).sqrt()
        pooled = torch.cat((self.attention(sequence), sequence.mean(1), mean, deviation), dim=1)
        logits: Tensor = self.classify(self.dropout(pooled))
        return logits


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedTrunkRecipe(Recipe):
    """Stretches of several overlapping windows, which share the trunk in training as well, augmented as a whole.

    Attributes:
        shape: Layer sizes and options of the network.
        augmentation: How strongly stretches are changed.
        stretch_windows: Windows per stretch.
        stretches_per_track: Stretches drawn from each track per epoch.
        outliers: Stretches of every batch that are not music; their target is the same share for every genre.
        speech: Whether espeak-ng voices are among the outliers.
    """

    system = "shared-trunk-crnn"
    summary = "CRNN whose convolutions run once for all windows that overlap"

    shape: SharedTrunkShape = field(default_factory=SharedTrunkShape)
    augmentation: Augmentation = field(default_factory=Augmentation)
    stretch_windows: int = 4
    stretches_per_track: int = 2
    outliers: int = 0
    speech: bool = False

    @classmethod
    def of(cls, source: Source, *, window_s: float | None = None) -> SharedTrunkRecipe:
        """Return the recipe; it is the same for both sources, with the features of the precomputed spectrograms."""
        del source
        features, length_s = gtzan_features(Unchanged()), window_s or 3.0
        return cls(
            schedule=Schedule(
                optimiser="adamw",
                learning_rate=2e-3,
                weight_decay=0.02,
                rate="one-cycle",
                keep="last",
                epochs=60,
                patience=20,
                batch=64,
                label_smoothing=0.1,
                averaging=0.995,
            ),
            audio=GTZAN_AUDIO,
            features=features,
            windows=WindowSpec(
                window_s=length_s,
                hop_s=min(1.0, length_s),
                frames=window_frames(features, GTZAN_AUDIO, length_s),
                last_window="align_to_end",
            ),
            augmentation=Augmentation(style=0.5, degradation=0.15, mask_frames=12),
            outliers=1,
            speech=True,
        )

    def network(self, n_labels: int) -> SharedTrunkCrnn:
        """Return a new network."""
        return SharedTrunkCrnn(
            self.shape,
            frames=self.windows.frames,
            hop=self.hop_frames,
            n_mels=self.features.n_mels,
            n_labels=n_labels,
        )

    @property
    def min_frames(self) -> int:
        """Length in frames of the shortest window that the network can process."""
        return self.shape.context + 1

    @property
    def hop_frames(self) -> int:
        """Distance in frames between the windows of a stretch."""
        return round(self.windows.hop_s * self.features.frame_rate(self.audio.sample_rate))

    @property
    def uses_outliers(self) -> bool:
        """Whether some windows of every batch are not music."""
        return self.outliers > 0

    @property
    def _batch_stretches(self) -> int:
        return max(1, self.schedule.batch // self.stretch_windows)

    def batches_per_epoch(self, tracks: TrackSet) -> int:
        """Return the number of batches that hold ``stretches_per_track`` stretches of every track."""
        return math.ceil(len(tracks) * self.stretches_per_track / self._batch_stretches)

    def batches(self, tracks: TrackSet, rng: np.random.Generator) -> Iterator[Batch]:
        """Yield augmented stretches from random positions, equally many of each track, with a target per window."""
        change, n_labels = self.augmentation, len(tracks.labels)
        outliers = outlier_frames(self.audio, self.features, speech=self.speech) if self.outliers else ()
        n_frames = self.windows.frames + (self.stretch_windows - 1) * self.hop_frames
        order = rng.permutation(np.repeat(np.arange(len(tracks)), self.stretches_per_track))
        for begin in range(0, len(order), self._batch_stretches):
            chosen = [tracks.tracks[i] for i in order[begin : begin + self._batch_stretches]]
            not_music = [outliers[i] for i in rng.integers(len(outliers), size=self.outliers)] if outliers else []
            frames = [*(track.frames for track in chosen), *not_music]
            cut = np.stack([random_window(_filling(whole, n_frames), n_frames, change, rng) for whole in frames])
            changed = degrade(random_eq(cut, change, rng), change, rng)
            # Style, masks and mixup are defined for levels between 0 and 1.
            levels = mask(mix_style(normalise(changed, _TRAINING_RANGE), change, rng), change, rng)
            undecided = np.full((len(not_music), n_labels), 1 / n_labels, dtype=np.float32)
            targets = np.concatenate((one_hot([track.genre for track in chosen], n_labels), undecided))
            levels, targets = mix_up(levels, targets, change, rng)
            in_db = (levels - np.float32(1.0)) * np.float32(_TRAINING_RANGE.range_db)
            yield in_db, np.repeat(targets, self.stretch_windows, axis=0)


def _cropped(x: Tensor, frames: int) -> Tensor:
    """Drop that many frames of the last axis, half of them at each end."""
    first = frames // 2
    return x[..., first : first - frames] if frames else x


def _filling(track: NDArray[np.float32], n_frames: int) -> NDArray[np.float32]:
    """Return a track, repeated as short tracks are if it does not fill a stretch."""
    return track if len(track) >= n_frames else np.resize(track, (n_frames, track.shape[1]))
