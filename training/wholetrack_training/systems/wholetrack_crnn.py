"""wholetrack's own CRNN: convolutions that squeeze frequency to one, a GRU over time, two ways of pooling it."""

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
    change_colour,
    do_damage,
    mask,
    mix_style,
    mix_up,
    random_window,
)
from wholetrack_training.systems.batches import one_hot
from wholetrack_training.systems.layers import AttentionPool, SqueezeExcite, as_image, as_sequence
from wholetrack_training.systems.outliers import outlier_frames
from wholetrack_training.systems.recipe import (
    GTZAN_AUDIO,
    Batch,
    Recipe,
    Schedule,
    Source,
    gtzan_features,
    window_frames,
)


@dataclass(frozen=True, slots=True)
class CrnnShape:
    """Widths and pools of the network.

    Attributes:
        channels: of each convolution block.
        pool_bands: by how much each block divides the number of mel bands.
        pool_frames: by how much each block divides the number of frames.
        hidden: units of the GRU in each direction.
        dropout: before the last layer; a quarter of it behind each block.
        centred: hear each window a second time without the mean of every band over time, and with it without what a
            recording's equaliser adds to all of it.
        deaf_bands: so many of the highest bands are heard as the one below them. Above 10 kHz GTZAN's files tell by
            which encoder they came, and with it the genre: re-encoded pop became metal.
    """

    channels: tuple[int, ...] = (24, 40, 64, 112, 160)
    pool_bands: tuple[int, ...] = (2, 2, 2, 4, 4)
    pool_frames: tuple[int, ...] = (1, 2, 1, 1, 1)
    hidden: int = 64
    dropout: float = 0.4
    centred: bool = False
    deaf_bands: int = 0


class Crnn(nn.Module):
    """Windows ``[N, frames, n_mels]``, normalised, to logits ``[N, n_labels]``."""

    def __init__(self, shape: CrnnShape, *, n_mels: int, n_labels: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        self.centred, self.deaf_bands = shape.centred, shape.deaf_bands
        inputs, bands = 2 if shape.centred else 1, n_mels
        for i, (channels, divide_bands, divide_frames) in enumerate(
            zip(shape.channels, shape.pool_bands, shape.pool_frames, strict=True)
        ):
            # The first block halves the bands by its stride: at full height it would cost more than all others.
            stride, pool = (
                ((divide_bands, 1), (1, divide_frames)) if i == 0 else ((1, 1), (divide_bands, divide_frames))
            )
            blocks += [
                nn.Conv2d(inputs, channels, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                nn.SiLU(),
                SqueezeExcite(channels) if i >= 2 else nn.Identity(),
                nn.MaxPool2d(pool) if pool != (1, 1) else nn.Identity(),
                nn.Dropout(shape.dropout / 4),
            ]
            inputs, bands = channels, bands // divide_bands
        self.blocks = nn.Sequential(*blocks)
        self.gru = nn.GRU(inputs * bands, shape.hidden, bidirectional=True, batch_first=True)
        self.attention = AttentionPool(2 * shape.hidden)
        self.dropout = nn.Dropout(shape.dropout)
        self.classify = nn.Linear(4 * shape.hidden, n_labels)

    def forward(self, windows: Tensor) -> Tensor:
        """Logits of each window."""
        x = as_image(windows)
        if self.deaf_bands:
            heard = x[:, :, : -self.deaf_bands]
            x = torch.cat((heard, heard[:, :, -1:].expand(-1, -1, self.deaf_bands, -1)), dim=2)
        if self.centred:
            x = torch.cat((x, x - x.mean(3, keepdim=True)), dim=1)
        x, _ = self.gru(as_sequence(self.blocks(x)))
        x = torch.cat((self.attention(x), x.mean(1)), dim=1)
        logits: Tensor = self.classify(self.dropout(x))
        return logits


@dataclass(frozen=True, slots=True, kw_only=True)
class WholetrackCrnn(Recipe):
    """3 s windows from anywhere in a track; tempo, pitch, colour, masks and mixtures against so few tracks.

    Attributes:
        shape: of the network.
        augmentation: how far windows are changed.
        windows_per_track: drawn in each epoch.
        outliers: how many windows of every batch are no music, with every genre as likely as any other.
        speech: whether voices of espeak-ng are among them.
    """

    system = "wholetrack-crnn"
    summary = "CRNN with squeeze-and-excitation, attention and mean over time"

    shape: CrnnShape = field(default_factory=CrnnShape)
    augmentation: Augmentation = field(default_factory=Augmentation)
    windows_per_track: int = 8
    outliers: int = 0
    speech: bool = False

    @classmethod
    def of(cls, source: Source, *, window_s: float | None = None) -> WholetrackCrnn:
        """The same for both sources: its features are those of the precomputed spectrograms."""
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
            shape=CrnnShape(centred=True, deaf_bands=6),
            augmentation=Augmentation(style=0.5, damage=0.15),
            outliers=4,
            speech=True,
        )

    def network(self, n_labels: int) -> Crnn:
        """The CRNN."""
        return Crnn(self.shape, n_mels=self.features.n_mels, n_labels=n_labels)

    @property
    def knows_outliers(self) -> bool:
        """If some windows of every batch are no music."""
        return self.outliers > 0

    def batches_per_epoch(self, tracks: TrackSet) -> int:
        """As many windows of every track."""
        return math.ceil(len(tracks) * self.windows_per_track / self.schedule.batch)

    def batches(self, tracks: TrackSet, rng: np.random.Generator) -> Iterator[Batch]:
        """Windows from random positions, each track as often as any other."""
        batch, change = self.schedule.batch, self.augmentation
        outliers = outlier_frames(self.audio, self.features, speech=self.speech) if self.outliers else ()
        order = rng.permutation(np.repeat(np.arange(len(tracks)), self.windows_per_track))
        for begin in range(0, len(order), batch):
            chosen = [tracks.tracks[i] for i in order[begin : begin + batch]]
            no_music = [outliers[i] for i in rng.integers(len(outliers), size=self.outliers)] if outliers else []
            frames = [*(track.frames for track in chosen), *no_music]
            cut = np.stack([random_window(whole, self.windows.frames, change, rng) for whole in frames])
            heard = do_damage(change_colour(cut, change, rng), change, rng)
            windows = normalise(heard, self.features.normalisation)
            n_labels = len(tracks.labels)
            undecided = np.full((len(no_music), n_labels), 1 / n_labels, dtype=np.float32)
            targets = np.concatenate((one_hot([track.genre for track in chosen], n_labels), undecided))
            yield mix_up(mask(mix_style(windows, change, rng), change, rng), targets, change, rng)
