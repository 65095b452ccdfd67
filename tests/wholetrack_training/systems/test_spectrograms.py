"""Spectrograms in PyTorch have the values of the service's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wholetrack.contracts import FeatureSpec, RelativeToMax
from wholetrack.features.logmel import LogMel
from wholetrack.features.normalise import normalise
from wholetrack_training.systems.gtzan import gtzan_features
from wholetrack_training.systems.spectrograms import Spectrogram
from wholetrack_training.systems.taggers import front_ends
from wholetrack_training.systems.two_towers import MUSIC_FEATURES


@pytest.mark.parametrize(
    ("spec", "rate", "frames"),
    [
        (MUSIC_FEATURES, 22050, 288),
        (gtzan_features(RelativeToMax(range_db=60.0)), 22050, 39),
        (front_ends.MN04, 32000, 300),
        (front_ends.MUSICNN, 16000, 187),
        (front_ends.FCN, 16000, 187),
    ],
    ids=["music", "spectrum", "mn04", "musicnn", "fcn"],
)
def test_frames_equal_those_of_the_service(spec: FeatureSpec, rate: int, frames: int) -> None:
    samples = np.random.default_rng(1).normal(0.0, 0.1, (2, 3 * rate)).astype(np.float32)
    found = Spectrogram(spec, rate, frames)(torch.from_numpy(samples)).numpy()
    for window, own in zip(samples, found, strict=True):
        stream = LogMel(spec, rate).stream()
        expected = np.concatenate((stream.push(window), stream.finish()))[:frames]
        np.testing.assert_allclose(own, normalise(expected[None], spec.normalisation)[0], atol=2e-4)
