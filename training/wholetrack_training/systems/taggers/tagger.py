"""Published taggers with a common interface: tags and embedding of windows of a recording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wholetrack.contracts import FeatureSpec
from wholetrack.features.logmel import LogMel
from wholetrack.features.normalise import normalise
from wholetrack_training.errors import DataError
from wholetrack_training.systems.taggers import fcn, front_ends, mn04, musicnn
from wholetrack_training.systems.taggers.weights import PublishedWeights, read_weights

_BATCH = 16


@dataclass(frozen=True, slots=True)
class TaggerOutputs:
    """What a tagger says of the windows of a recording.

    Attributes:
        logits: One per tag, ``[n_windows, n_labels]``.
        embedding: The penultimate layer, ``[n_windows, length]``; ``length`` is 0 if the tagger has none.
    """

    logits: NDArray[np.float32]
    embedding: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Tagger:
    """A published network.

    Attributes:
        name: Name of the network and of its file of weights.
        labels: Names of the tags.
        sample_rate: Sample rate of its audio in Hz.
        features: Its log-mel spectrogram.
        frames: Frames of a window.
        window_s: Length of a window in seconds.
        network: Maps windows ``[N, frames, n_mels]`` to logits and embedding.
    """

    name: str
    labels: tuple[str, ...]
    sample_rate: int
    features: FeatureSpec
    frames: int
    window_s: float
    network: nn.Module

    def outputs(self, samples: NDArray[np.float32], centres_s: Sequence[float]) -> TaggerOutputs:
        """Return the outputs for windows around some positions of a recording.

        A window that would extend beyond the recording is moved into it. A recording that is shorter than a window is
        repeated.

        Args:
            samples: Mono audio at :attr:`sample_rate`, ``[n_samples]``.
            centres_s: Centre of each window in seconds.
        """
        needed = int(np.ceil(self.window_s * self.sample_rate)) + self.features.n_fft
        stream = LogMel(self.features, self.sample_rate).stream()
        whole = samples if len(samples) >= needed else np.resize(samples, needed)
        frames = np.concatenate((stream.push(whole), stream.finish()))
        rate = float(self.features.frame_rate(self.sample_rate))
        first = np.rint((np.asarray(centres_s) - self.window_s / 2) * rate).astype(np.intp)
        first = np.clip(first, 0, len(frames) - self.frames)
        rows = normalise(frames[first[:, None] + np.arange(self.frames)], self.features.normalisation)
        self.network.eval()
        logits, embeddings = [], []
        with torch.inference_mode():
            for begin in range(0, len(rows), _BATCH):
                of_batch, embedding = self.network(torch.from_numpy(rows[begin : begin + _BATCH]))
                logits.append(of_batch.numpy())
                embeddings.append(embedding.numpy())
        return TaggerOutputs(np.concatenate(logits), np.concatenate(embeddings))


def open_tagger(name: str, folder: Path) -> Tagger:
    """Read the weights of a tagger from ``<folder>/<name>.npz`` and build its network.

    Args:
        name: ``mn04``, ``msd_musicnn`` or ``msd_fcn``.
        folder: Folder of the weights.

    Raises:
        DataError: If there is no such tagger, or its weights are missing or damaged.
    """
    if name not in _BUILDERS:
        raise DataError(f"there is no tagger {name}; choose from {', '.join(_BUILDERS)}")
    return _BUILDERS[name](name, read_weights(folder / f"{name}.npz"))


def _mn04(name: str, weights: PublishedWeights) -> Tagger:
    network = mn04.Mn04(weights)
    return Tagger(name, weights.labels, 32000, front_ends.MN04, mn04.FRAMES, 3.0, network)


def _musicnn(name: str, weights: PublishedWeights) -> Tagger:
    network = musicnn.Musicnn(weights)
    return Tagger(name, weights.labels, 16000, front_ends.MUSICNN, musicnn.FRAMES, 3.0, network)


def _fcn(name: str, weights: PublishedWeights) -> Tagger:
    return Tagger(name, weights.labels, 16000, front_ends.FCN, fcn.FRAMES, fcn.SECONDS, fcn.Fcn(weights))


_BUILDERS = {"mn04": _mn04, "msd_musicnn": _musicnn, "msd_fcn": _fcn}
TAGGERS = tuple(_BUILDERS)
"""Names of the taggers that teach."""
