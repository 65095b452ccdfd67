"""The interface of a system: its features, windows, network, augmentation and schedule, and how to change them."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from torch import nn

from wholetrack.contracts import AudioSpec, FeatureSpec, WindowSpec
from wholetrack.features.grid import FrameGrid, WindowGrid
from wholetrack_training.data.tracks import TrackSet
from wholetrack_training.errors import RecipeError
from wholetrack_training.systems.schedule import Schedule

_log = logging.getLogger(__name__)

Batch = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Normalised windows ``[N, frames, n_mels]``, and the target share of each genre, ``[N, n_labels]``."""

_RENAMED_FIELDS = {
    "augmentation.damage": "augmentation.degradation",
    "schedule.taught": "schedule.distillation",
    "shape.deaf_bands": "shape.masked_top_bands",
}
"""Former and current dotted names of fields; runs and checkpoints on disk may still have the former ones."""


class Source(StrEnum):
    """What a system is trained on.

    Attributes:
        AUDIO: Recordings.
        PRECOMPUTED: Precomputed spectrograms with 12.9 frames per second.
    """

    AUDIO = "audio"
    PRECOMPUTED = "precomputed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe(ABC):
    """Everything that determines a training run except the tracks and the seed.

    Each system has its own subclass, which adds the fields that only that system has.

    Attributes:
        audio: Sample rate of the audio.
        features: Spectrogram and normalisation.
        windows: Length and hop of the windows that are evaluated and served.
        schedule: How the network is fitted.
    """

    system: ClassVar[str]
    """The name by which the system is chosen and its model is served."""
    summary: ClassVar[str]
    """A short description of the network."""

    audio: AudioSpec
    features: FeatureSpec
    windows: WindowSpec
    schedule: Schedule

    def __post_init__(self) -> None:
        """Check that the windows fit the frames, and are long enough for the network's pooling.

        Raises:
            RecipeError: If a window has too few frames, or the hop is not between a frame and a window.
        """
        try:
            WindowGrid.of(self.windows, FrameGrid.of(self.features, self.audio.sample_rate))
        except ValueError as error:
            raise RecipeError(f"the windows of {self.system} are impossible: {error}") from error
        if self.windows.frames < self.min_frames:
            shortest_s = self.min_frames / float(self.features.frame_rate(self.audio.sample_rate))
            raise RecipeError(f"{self.system} needs windows of at least {shortest_s:.2f} s from this source")

    @property
    def min_frames(self) -> int:
        """Length in frames of the shortest window that the network can process."""
        return 1

    @classmethod
    @abstractmethod
    def of(cls, source: Source, *, window_s: float | None = None) -> Self:
        """Return the system as published, adapted to what it is trained on.

        Args:
            source: Recordings, or precomputed spectrograms with their own, lower frame rate.
            window_s: Length of a window in seconds; None for the published one.
        """

    @abstractmethod
    def network(self, n_labels: int) -> nn.Module:
        """Return a new network.

        Returns:
            A module that maps normalised windows ``[N, frames, n_mels]`` to logits ``[N, n_labels]``, or
            ``[N, steps, n_labels]`` if it classifies every step of a window.
        """

    @abstractmethod
    def batches(self, tracks: TrackSet, rng: np.random.Generator) -> Iterator[Batch]:
        """Yield one epoch of augmented training windows in random order; all randomness comes from ``rng``."""

    @abstractmethod
    def batches_per_epoch(self, tracks: TrackSet) -> int:
        """Return the number of batches that :meth:`batches` yields."""

    @property
    def audio_versions(self) -> tuple[str, ...]:
        """Augmented copies to make of every recording, names in :data:`.audio_augmentation.VERSIONS`."""
        return ()

    @property
    def uses_outliers(self) -> bool:
        """Whether the network is trained to be undecided about sounds that are not music."""
        return False

    def as_dict(self) -> dict[str, Any]:
        """Return all fields as JSON values, which are equal if and only if two recipes of a system are equal."""
        document: dict[str, Any] = TypeAdapter(type(self)).dump_python(self, mode="json")
        return document

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """Return the recipe that :meth:`as_dict` wrote, in this version or an earlier one.

        Missing fields have their default, which is what the earlier version did.

        Raises:
            RecipeError: If a value is impossible.
        """
        try:
            return TypeAdapter(cls).validate_python(_with_current_names(document))
        except ValidationError as error:
            faults = (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
            raise RecipeError(f"the recipe of {cls.system} is invalid: {'; '.join(faults)}") from error

    def changed(self, changes: Mapping[str, Any]) -> Self:
        """Return the recipe with some values replaced.

        Args:
            changes: New values by dotted name, such as ``{"schedule.epochs": 2}``.

        Raises:
            RecipeError: If there is no such field, or the value is impossible.
        """
        document = self.as_dict()
        for name, value in changes.items():
            current_name = _RENAMED_FIELDS.get(name, name)
            if current_name != name:
                _log.warning("The recipe field %s is deprecated: use %s instead", name, current_name)
            *path, last = current_name.split(".")
            fields: Any = document
            for part in path:
                fields = fields.get(part) if isinstance(fields, dict) else None
            if not isinstance(fields, dict) or last not in fields:
                raise RecipeError(f"the recipe of {self.system} has no field {name}")
            fields[last] = value
        return self.from_dict(document)


def window_frames(features: FeatureSpec, audio: AudioSpec, window_s: float) -> int:
    """Return how many frames start within a window of ``window_s`` seconds."""
    return int(-(-window_s * features.frame_rate(audio.sample_rate) // 1))


def _with_current_names(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a recipe with renamed fields under their current names."""
    copy = {name: dict(value) if isinstance(value, Mapping) else value for name, value in document.items()}
    for former, current in _RENAMED_FIELDS.items():
        (part, old), (_, new) = former.split("."), current.split(".")
        if isinstance(copy.get(part), dict) and old in copy[part]:
            copy[part][new] = copy[part].pop(old)
    return copy
