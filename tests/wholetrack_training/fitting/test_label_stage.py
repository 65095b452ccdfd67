"""Labels teach the linear classifier, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

import torch

from wholetrack_training.data.audio_pool import POOL_RATE, AudioPool
from wholetrack_training.errors import DataError
from wholetrack_training.fitting.label_stage import LabelPlan, fit_labels, labelled_features
from wholetrack_training.systems.checkpoints import new_network
from wholetrack_training.systems.taxonomy import AUDIOSET, GTZAN

pytestmark = pytest.mark.torch

TAGS = tuple(dict.fromkeys(tag for tags in AUDIOSET.values() for tag in tags))


def test_a_classifier_learns_the_genres_of_recordings_and_the_network_stays_as_it_is() -> None:
    rng = np.random.default_rng(0)
    at = np.arange(3 * POOL_RATE) / POOL_RATE
    genres = np.arange(20) % len(GTZAN)
    parts = [0.2 * np.sin(2 * np.pi * 110 * 2 ** (genre / 1.5) * at) + rng.normal(0, 0.01, len(at)) for genre in genres]
    samples = np.rint(np.concatenate(parts) * 32767).astype(np.int16)
    offsets = np.arange(21, dtype=np.int64) * len(at)
    audio = AudioPool(tuple(map(str, range(20))), offsets, samples)
    torch.manual_seed(0)
    network = new_network(TAGS).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    plan = LabelPlan(versions=1, inverse_penalty=1.0)
    fit_labels(network, audio, genres, plan)
    after = network.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"head.classify.weight", "head.classify.bias"}
    found = labelled_features(network, audio, plan)
    assert len(found.recording) == 40
    with torch.inference_mode():
        said = network.head.classify(torch.from_numpy(found.features)).argmax(1).numpy()
    assert (said == genres[found.recording]).mean() > 0.8


def test_a_genre_without_recordings_is_reported() -> None:
    audio = AudioPool(("one",), np.array([0, 3 * POOL_RATE]), np.zeros(3 * POOL_RATE, dtype=np.int16))
    with pytest.raises(DataError, match="no recording to learn classical, country,"):
        fit_labels(new_network(TAGS).eval(), audio, np.array([0]), LabelPlan())
