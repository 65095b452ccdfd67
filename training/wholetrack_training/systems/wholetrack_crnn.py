"""wholetrack's own CRNN: convolutions over frequency and time, a GRU over time, attention and mean pooling."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from wholetrack.contracts import RelativeToMax, WindowSpec
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
from wholetrack_training.systems.layers import AttentionPool, SqueezeExcite, as_image, as_sequence
from wholetrack_training.systems.outliers import outlier_frames
from wholetrack_training.systems.recipe import Batch, Recipe, Source, window_frames
from wholetrack_training.systems.schedule import Schedule
from wholetrack_training.systems.sliced_recipe import one_hot


@dataclass(frozen=True, slots=True)
class CrnnShape:
    """Layer sizes and options of the network.

    Attributes:
        channels: Channels of each convolution block.
        pool_bands: Factor by which each block reduces the number of mel bands.
        pool_frames: Factor by which each block reduces the number of frames.
        hidden: Units of the GRU in each direction.
        dropout: Dropout before the last layer; a quarter of it after each block.
        centred: Add a second input channel from which the mean of every band over time is subtracted. This removes a
            constant equalisation of the recording.
        masked_top_bands: Replace this many of the highest bands by the band below them. Above 10 kHz the files of
            GTZAN reveal their encoder, and with it the genre: re-encoded pop was classified as metal.
    """

    channels: tuple[int, ...] = (24, 40, 64, 112, 160)
    pool_bands: tuple[int, ...] = (2, 2, 2, 4, 4)
    pool_frames: tuple[int, ...] = (1, 2, 1, 1, 1)
    hidden: int = 64
    dropout: float = 0.4
    centred: bool = False
    masked_top_bands: int = 0


class Crnn(nn.Module):
    """Maps normalised windows ``[N, frames, n_mels]`` to logits ``[N, n_labels]``."""

    def __init__(self, shape: CrnnShape, *, n_mels: int, n_labels: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        self.centred, self.masked_top_bands = shape.centred, shape.masked_top_bands
        inputs, bands = 2 if shape.centred else 1, n_mels
        for i, (channels, pool_bands, pool_frames) in enumerate(
            zip(shape.channels, shape.pool_bands, shape.pool_frames, strict=True)
        ):
            # The first block halves the bands with its stride. At full height it would cost more than all the others.
            stride, pool = ((pool_bands, 1), (1, pool_frames)) if i == 0 else ((1, 1), (pool_bands, pool_frames))
            blocks += [
                nn.Conv2d(inputs, channels, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                nn.SiLU(),
                SqueezeExcite(channels) if i >= 2 else nn.Identity(),
                nn.MaxPool2d(pool) if pool != (1, 1) else nn.Identity(),
                nn.Dropout(shape.dropout / 4),
            ]
            inputs, bands = channels, bands // pool_bands
        self.blocks = nn.Sequential(*blocks)
        self.gru = nn.GRU(inputs * bands, shape.hidden, bidirectional=True, batch_first=True)
        self.attention = AttentionPool(2 * shape.hidden)
        self.dropout = nn.Dropout(shape.dropout)
        self.classify = nn.Linear(4 * shape.hidden, n_labels)

    def forward(self, windows: Tensor) -> Tensor:
        """Return the logits of each window."""
        logits: Tensor = self.classify(self.dropout(self.pool(self.sequence(windows))))
        return logits

    def sequence(self, windows: Tensor) -> Tensor:
        """Return the outputs of the GRU, ``[N, steps, 2 * hidden]``."""
        x = as_image(windows)
        if self.masked_top_bands:
            kept = x[:, :, : -self.masked_top_bands]
            x = torch.cat((kept, kept[:, :, -1:].expand(-1, -1, self.masked_top_bands, -1)), dim=2)
        if self.centred:
            x = torch.cat((x, x - x.mean(3, keepdim=True)), dim=1)
        out: Tensor = self.gru(as_sequence(self.blocks(x)))[0]
        return out

    def pool(self, sequence: Tensor) -> Tensor:
        """Pool the outputs of the GRU over time, ``[N, 4 * hidden]``."""
        return torch.cat((self.attention(sequence), sequence.mean(1)), dim=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class WholetrackCrnn(Recipe):
    """3 s windows from random positions, strongly augmented because there are few tracks.

    Attributes:
        shape: Layer sizes and options of the network.
        augmentation: How strongly windows are changed.
        windows_per_track: Windows drawn from each track per epoch.
        outliers: Windows of every batch that are not music; their target is the same share for every genre.
        speech: Whether espeak-ng voices are among the outliers.
    """

    system = "wholetrack-crnn"
    summary = "CRNN with squeeze-and-excitation, attention and mean pooling over time"

    shape: CrnnShape = field(default_factory=CrnnShape)
    augmentation: Augmentation = field(default_factory=Augmentation)
    windows_per_track: int = 8
    outliers: int = 0
    speech: bool = False

    @classmethod
    def of(cls, source: Source, *, window_s: float | None = None) -> WholetrackCrnn:
        """Return the recipe; it is the same for both sources, with the features of the precomputed spectrograms."""
        del source
        features, length_s = gtzan_features(RelativeToMax(range_db=60.0)), window_s or 3.0
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
            shape=CrnnShape(centred=True, masked_top_bands=6),
            augmentation=Augmentation(style=0.5, degradation=0.15),
            outliers=4,
            speech=True,
        )

    def network(self, n_labels: int) -> Crnn:
        """Return a new CRNN."""
        return Crnn(self.shape, n_mels=self.features.n_mels, n_labels=n_labels)

    @property
    def uses_outliers(self) -> bool:
        """Whether some windows of every batch are not music."""
        return self.outliers > 0

    def batches_per_epoch(self, tracks: TrackSet) -> int:
        """Return the number of batches that hold ``windows_per_track`` windows of every track."""
        return math.ceil(len(tracks) * self.windows_per_track / self.schedule.batch)

    def batches(self, tracks: TrackSet, rng: np.random.Generator) -> Iterator[Batch]:
        """Yield augmented windows from random positions, equally many of each track."""
        batch, change = self.schedule.batch, self.augmentation
        outliers = outlier_frames(self.audio, self.features, speech=self.speech) if self.outliers else ()
        order = rng.permutation(np.repeat(np.arange(len(tracks)), self.windows_per_track))
        for begin in range(0, len(order), batch):
            chosen = [tracks.tracks[i] for i in order[begin : begin + batch]]
            not_music = [outliers[i] for i in rng.integers(len(outliers), size=self.outliers)] if outliers else []
            frames = [*(track.frames for track in chosen), *not_music]
            cut = np.stack([random_window(whole, self.windows.frames, change, rng) for whole in frames])
            changed = degrade(random_eq(cut, change, rng), change, rng)
            windows = normalise(changed, self.features.normalisation)
            n_labels = len(tracks.labels)
            undecided = np.full((len(not_music), n_labels), 1 / n_labels, dtype=np.float32)
            targets = np.concatenate((one_hot([track.genre for track in chosen], n_labels), undecided))
            yield mix_up(mask(mix_style(windows, change, rng), change, rng), targets, change, rng)
