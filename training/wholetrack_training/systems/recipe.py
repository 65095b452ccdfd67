"""What every system says of itself: features, windows, network, augmentation, optimiser; and what may be changed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch import nn

from wholetrack.contracts import AudioSpec, FeatureSpec, Normalisation, WindowSpec
from wholetrack_training.data.tracks import TrackSet

Batch = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Normalised windows ``[N, frames, n_mels]`` and the share of each genre in them, ``[N, n_labels]``."""


class Source(StrEnum):
    """What a network learns from: recordings, or spectrograms that somebody computed at 12.9 frames a second."""

    AUDIO = "audio"
    PRECOMPUTED = "precomputed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How a network is fitted.

    Attributes:
        optimiser: which one.
        learning_rate: of all weights; the highest of a one-cycle rate.
        weight_decay: decoupled (AdamW) or as a penalty (the others).
        rate: how the learning rate moves: ``one-cycle`` up and down over all epochs (Smith 2018), ``plateau`` down
            to a half whenever validation has not improved for five epochs, or ``constant``.
        warm_up: share of a one-cycle rate's steps on which it rises.
        keep: the weights of the epoch with the ``best`` validation loss, or of the ``last`` epoch, in which case
            nothing is validated and the validation tracks are learned from too.
        epochs: at most.
        patience: epochs without a better validation loss after which training ends.
        batch: windows per step.
        label_smoothing: share of the target that is spread over all genres.
        averaging: decay of the moving average of the weights that is judged and kept, per step; 0 keeps the weights
            themselves.
        teachers: networks of the same recipe and other seeds that are trained first. They hear every window as the
            network hears it, and their mean answer is a part of its target: what an ensemble knows goes into one
            network (Hinton et al. 2015; Beyer et al. 2022).
        taught: that part of the target, from 0 to 1.
    """

    optimiser: Literal["adam", "adamw", "rmsprop"] = "adam"
    learning_rate: float
    weight_decay: float = 0.0
    rate: Literal["one-cycle", "plateau", "constant"] = "constant"
    warm_up: float = 0.2
    keep: Literal["best", "last"] = "best"
    epochs: int
    patience: int = 0
    batch: int
    label_smoothing: float = 0.0
    averaging: float = 0.0
    teachers: int = 0
    taught: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe(ABC):
    """Everything that decides a training but the tracks and the seed.

    A system derives its own recipe from this one and adds what only it has.
    """

    system: ClassVar[str]
    """The name by which the system is chosen and its model is served."""
    summary: ClassVar[str]
    """What the network is, in a few words."""

    audio: AudioSpec
    features: FeatureSpec
    windows: WindowSpec
    schedule: Schedule

    def __post_init__(self) -> None:
        """Refuse windows of which the network's pools would leave nothing.

        Raises:
            ValueError: if a window has too few frames.
        """
        if self.windows.frames < self.least_frames:
            least_s = self.least_frames / float(self.features.frame_rate(self.audio.sample_rate))
            raise ValueError(f"{self.system} needs windows of at least {least_s:.2f} s from this source")

    @property
    def least_frames(self) -> int:
        """The shortest window that the network can hear."""
        return 1

    @classmethod
    @abstractmethod
    def of(cls, source: Source, *, window_s: float | None = None) -> Self:
        """The system as published, fitted to what it learns from.

        Args:
            source: recordings, or precomputed spectrograms with their own, lower frame rate.
            window_s: length of a window in place of the published one.
        """

    @abstractmethod
    def network(self, n_labels: int) -> nn.Module:
        """A new network: normalised windows ``[N, frames, n_mels]`` to logits.

        Returns:
            A module that gives ``[N, n_labels]``, or ``[N, steps, n_labels]`` where it states a belief for every step.
        """

    @abstractmethod
    def batches(self, tracks: TrackSet, rng: np.random.Generator) -> Iterator[Batch]:
        """One epoch of training windows, augmented and in random order, all chance taken from ``rng``."""

    @abstractmethod
    def batches_per_epoch(self, tracks: TrackSet) -> int:
        """How many batches :meth:`batches` gives."""

    @property
    def sound_versions(self) -> tuple[str, ...]:
        """Which changed copies of every recording it learns from, of :data:`.audio_augmentation.VERSIONS`."""
        return ()

    @property
    def knows_outliers(self) -> bool:
        """Whether it learns from sounds that are no music, so that being undecided means something."""
        return False

    def as_dict(self) -> dict[str, Any]:
        """All fields as JSON values; two recipes of a system are the same exactly if these are."""
        document: dict[str, Any] = TypeAdapter(type(self)).dump_python(self, mode="json")
        return document

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """The recipe that :meth:`as_dict` wrote.

        Raises:
            pydantic.ValidationError: if a value is impossible.
        """
        return TypeAdapter(cls).validate_python(document)

    def changed(self, changes: Mapping[str, Any]) -> Self:
        """The recipe with some values replaced.

        Args:
            changes: new values by dotted name, such as ``{"schedule.epochs": 2}``.

        Raises:
            ValueError: if there is no such value, or it is impossible.
        """
        document = self.as_dict()
        for name, value in changes.items():
            *path, last = name.split(".")
            place: Any = document
            for part in path:
                place = place.get(part) if isinstance(place, dict) else None
            if not isinstance(place, dict) or last not in place:
                raise ValueError(f"a recipe of {self.system} has no value {name}")
            place[last] = value
        return self.from_dict(document)


GTZAN_AUDIO = AudioSpec(sample_rate=22050)


def gtzan_features(normalisation: Normalisation) -> FeatureSpec:
    """The features of ``gtzan-mel.npz``: 128 bands at 13 frames a second, up to 80 dB below the clip's maximum."""
    return FeatureSpec(
        n_fft=2048,
        frames_per_second=13,
        n_mels=128,
        fmin=0.0,
        fmax=11025.0,
        floor=1e-10,
        normalisation=normalisation,
    )


LONGEST_PRECOMPUTED_S = 29.0
"""The clips of ``gtzan-mel.npz`` have 387 frames: whole seconds of 13 frames."""


def window_frames(features: FeatureSpec, audio: AudioSpec, window_s: float) -> int:
    """How many frames start within a window."""
    return int(-(-window_s * features.frame_rate(audio.sample_rate) // 1))
