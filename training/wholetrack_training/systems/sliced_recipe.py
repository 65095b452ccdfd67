"""Recipes whose epochs consist of every slice of every track once, as in the published systems."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wholetrack.features.normalise import normalise
from wholetrack_training.data.tracks import TrackSet
from wholetrack_training.data.windows import window_at, window_starts
from wholetrack_training.systems.recipe import Batch, Recipe


def one_hot(genres: Sequence[int], n_labels: int) -> NDArray[np.float32]:
    """Return rows of the identity matrix, ``[len(genres), n_labels]``."""
    return np.eye(n_labels, dtype=np.float32)[list(genres)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlicedRecipe(Recipe):
    """A recipe whose epochs consist of every slice of every track once, in random order.

    Attributes:
        slice_hop_s: Distance in seconds between the slices of a track that are used for training.
    """

    slice_hop_s: float

    def batches_per_epoch(self, tracks: TrackSet) -> int:
        """Return the number of batches that hold all slices."""
        return math.ceil(len(self._slices(tracks)) / self.schedule.batch)

    def batches(self, tracks: TrackSet, rng: np.random.Generator) -> Iterator[Batch]:
        """Yield all slices in random order, augmented by the system."""
        slices, n_labels = self._slices(tracks), len(tracks.labels)
        order = rng.permutation(len(slices))
        for begin in range(0, len(order), self.schedule.batch):
            chosen = [slices[i] for i in order[begin : begin + self.schedule.batch]]
            cut = np.stack([window_at(frames, start, self.windows.frames) for _, frames, start in chosen])
            yield self.augmented(cut, rng), one_hot([genre for genre, _, _ in chosen], n_labels)

    @abstractmethod
    def augmented(self, slices: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Return log-mel slices ``[N, frames, n_mels]`` randomly changed and normalised."""

    def normalised(self, slices: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return log-mel slices normalised as the network expects them."""
        return normalise(slices, self.features.normalisation)

    def _slices(self, tracks: TrackSet) -> list[tuple[int, NDArray[np.float32], int]]:
        """Return the genre, the frames of the track or of an augmented copy, and the first frame of every slice."""
        windows = self.windows.model_copy(update={"hop_s": self.slice_hop_s})
        return [
            (track.genre, frames, start)
            for track in tracks.tracks
            for frames in (track.frames, *track.versions)
            for start in window_starts(len(frames), self.features, windows, self.audio)
        ]
