"""Third stage: labels teach a linear classifier of GTZAN's genres, on what the taught network predicts."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from wholetrack_training.data.audio_pool import POOL_RATE, AudioPool
from wholetrack_training.fitting.music_stage import window_samples
from wholetrack_training.fitting.waveforms import UNCHANGED, SoundChanges, Waveforms
from wholetrack_training.systems.network_inputs import NetworkInputs
from wholetrack_training.systems.taxonomy import GTZAN
from wholetrack_training.systems.two_towers import WINDOW_S, TwoTowerCrnn

_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelPlan:
    """How the classifier is fitted.

    Attributes:
        versions: Changed copies of each window.
        penalty: Inverse of the regularisation strength of the logistic regression, for standardised features.
        seed: Seed of all randomness.
        changes: How the copies are changed.
    """

    versions: int = 3
    penalty: float = 0.003
    seed: int = 1
    changes: SoundChanges = field(default_factory=lambda: SoundChanges(mixed=0.0, speed=0.05))


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the parts of the network say about GTZAN's genres, for the windows of some recordings.

    Attributes:
        recording: Index of the recording of each window, ``[N]``.
        mapped: Evidence from tags, ``[N, 10]``.
        prior: Log probabilities of the spectrum tower, ``[N, 10]``.
        features: Inputs of the linear classifier, ``[N, n_features]``.
    """

    recording: NDArray[np.intp]
    mapped: NDArray[np.float32]
    prior: NDArray[np.float32]
    features: NDArray[np.float32]


def gather_evidence(
    network: TwoTowerCrnn, audio: AudioPool, versions: int, changes: SoundChanges, seed: int
) -> Evidence:
    """Return what a network says about windows from random positions of recordings, one for each 3 s.

    Args:
        network: The network, in evaluation mode on the CPU.
        audio: The recordings.
        versions: Changed copies of each window, beside the unchanged one.
        changes: How to change the copies.
        seed: Seed of positions and changes.
    """
    device, inputs = torch.device("cpu"), NetworkInputs()
    generator = torch.Generator().manual_seed(seed)
    waveforms = Waveforms(audio, device, generator)
    seconds = torch.from_numpy(np.diff(audio.offsets)) / (WINDOW_S * POOL_RATE)
    each = torch.arange(len(audio)).repeat_interleave(seconds.round().clamp(min=1).long())
    found: list[tuple[Tensor, ...]] = []
    with torch.inference_mode():
        for change in (UNCHANGED, *[changes] * versions):
            for chosen in each.split(_BATCH):
                towers = network.towers(*inputs(window_samples(waveforms.draw(chosen, WINDOW_S, change))))
                said = network.predict(towers)
                pooled = network.spectrum.pool(towers.spectrum)
                prior = torch.log_softmax(network.spectrum.classify(pooled), dim=1)
                mapped = network.head.tag_map(said.tags, said.msd)[:, : len(GTZAN)]
                found.append((chosen, mapped, prior, network.head.labelled_features(said.embedding, said.tags)))
    chosen, *others = (torch.cat(values).numpy() for values in zip(*found, strict=True))
    return Evidence(chosen, *others)


def fit_labels(network: TwoTowerCrnn, audio: AudioPool, genres: NDArray[np.intp], plan: LabelPlan) -> None:
    """Fit the linear classifier of a network in place.

    Args:
        network: The network, in evaluation mode on the CPU.
        audio: Recordings.
        genres: Genre of each recording.
        plan: How to fit.
    """
    evidence = gather_evidence(network, audio, plan.versions, plan.changes, plan.seed)
    weight = 1.0 / np.bincount(evidence.recording)[evidence.recording]
    scaler = StandardScaler().fit(evidence.features)
    regression = LogisticRegression(C=plan.penalty * len(genres), max_iter=500)
    regression.fit(
        scaler.transform(evidence.features),
        genres[evidence.recording],
        sample_weight=weight / weight.mean() * len(genres) / len(weight),
    )
    weights = regression.coef_ / scaler.scale_
    with torch.no_grad():
        network.head.classify.weight.copy_(torch.from_numpy(weights))
        network.head.classify.bias.copy_(torch.from_numpy(regression.intercept_ - weights @ scaler.mean_))
