"""Third stage: labels teach a linear classifier of GTZAN's genres, on what the taught network predicts."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from wholetrack_training.data.audio_pool import POOL_RATE, AudioPool
from wholetrack_training.errors import DataError
from wholetrack_training.fitting.music_stage import window_samples
from wholetrack_training.fitting.waveforms import UNCHANGED, SoundChanges, Waveforms
from wholetrack_training.systems.network_inputs import NetworkInputs
from wholetrack_training.systems.taxonomy import GTZAN
from wholetrack_training.systems.two_towers import WINDOW_S, TwoTowerCrnn

_BATCH = 64
_MAX_ITERATIONS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelPlan:
    """How the classifier is fitted.

    Attributes:
        versions: Changed copies of each window.
        inverse_penalty: Inverse of the regularisation strength of the logistic regression, for standardised
            features. Every recording counts as one window.
        seed: Seed of all randomness.
        changes: How the copies are changed.
    """

    versions: int = 3
    inverse_penalty: float = 0.001
    seed: int = 1
    changes: SoundChanges = field(default_factory=lambda: SoundChanges(mixed=0.0, speed=0.05))


@dataclass(frozen=True, slots=True)
class LabelledFeatures:
    """Inputs of the classifier for windows of some recordings.

    Attributes:
        recording: Index of the recording of each window, ``[N]``.
        features: Inputs of the classifier, ``[N, n_features]``.
    """

    recording: NDArray[np.intp]
    features: NDArray[np.float32]


def labelled_features(network: TwoTowerCrnn, audio: AudioPool, plan: LabelPlan) -> LabelledFeatures:
    """Return the inputs of the classifier for windows from random positions of recordings, one for each 3 s.

    Args:
        network: The network, in evaluation mode on the CPU.
        audio: The recordings.
        plan: How many changed copies to add.
    """
    inputs = NetworkInputs()
    torch.manual_seed(plan.seed)
    waveforms = Waveforms(audio, torch.device("cpu"))
    seconds = torch.from_numpy(np.diff(audio.offsets)) / POOL_RATE
    each = torch.arange(len(audio)).repeat_interleave((seconds / WINDOW_S).round().clamp(min=1).long())
    recordings, features = [], []
    with torch.inference_mode():
        for change in (UNCHANGED, *[plan.changes] * plan.versions):
            for chosen in torch.split(each, _BATCH):
                towers = network.towers(*inputs(window_samples(waveforms.draw(chosen, WINDOW_S, change))))
                found = network.predict(towers)
                recordings.append(chosen)
                features.append(network.head.labelled_features(found.embedding, found.tags))
    return LabelledFeatures(torch.cat(recordings).numpy(), torch.cat(features).numpy())


def fit_labels(network: TwoTowerCrnn, audio: AudioPool, genres: NDArray[np.intp], plan: LabelPlan) -> None:
    """Fit the linear classifier of a network in place.

    Args:
        network: The network, in evaluation mode on the CPU.
        audio: Recordings.
        genres: Genre of each recording.
        plan: How to fit.

    Raises:
        DataError: If there is no recording of one of GTZAN's genres.
    """
    if missing := [genre for i, genre in enumerate(GTZAN) if i not in genres]:
        raise DataError(f"there is no recording to learn {', '.join(missing)} from")
    found = labelled_features(network, audio, plan)
    weight = 1.0 / np.bincount(found.recording)[found.recording]
    scaler = StandardScaler().fit(found.features)
    regression = LogisticRegression(C=plan.inverse_penalty, max_iter=_MAX_ITERATIONS)
    regression.fit(scaler.transform(found.features), genres[found.recording], sample_weight=weight)
    weights = regression.coef_ / scaler.scale_
    head = network.head
    with torch.no_grad():
        head.classify.weight.copy_(torch.from_numpy(weights))
        head.classify.bias.copy_(torch.from_numpy(regression.intercept_ - weights @ scaler.mean_))
