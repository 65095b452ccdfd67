"""A network of the joint stage is used again only if the run is the same."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

import torch

from wholetrack_training.data.audio_pool import POOL_RATE, AudioPool
from wholetrack_training.errors import DataError
from wholetrack_training.fitting import fold_training
from wholetrack_training.fitting.fold_data import FoldData
from wholetrack_training.fitting.fold_training import FoldTraining
from wholetrack_training.systems.checkpoints import new_network
from wholetrack_training.systems.taxonomy import AUDIOSET, GTZAN
from wholetrack_training.systems.two_towers import TwoTowerCrnn

pytestmark = pytest.mark.torch

TAGS = tuple(dict.fromkeys(tag for tags in AUDIOSET.values() for tag in tags))


class JointTraining:
    """Counts the runs, and returns a copy of the network that it was given."""

    runs = 0

    def __init__(self, start: TwoTowerCrnn, *_: object, device: torch.device) -> None:
        assert device.type == "cpu"
        self._start = start

    def run(self, checkpoint: Path) -> TwoTowerCrnn:
        assert checkpoint.name == "joint-checkpoint-1.pt"
        type(self).runs += 1
        return copy.deepcopy(self._start)


def test_a_network_of_another_run_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    length = 3 * POOL_RATE
    rng = np.random.default_rng(0)
    samples = rng.integers(-9000, 9000, 10 * length).astype(np.int16)
    audio = AudioPool(GTZAN, np.arange(11, dtype=np.int64) * length, samples)
    genres = torch.arange(10)
    data = FoldData(audio, genres, torch.zeros(1, 1, 1), torch.zeros(1), torch.zeros(1, 1, 1))
    monkeypatch.setattr(fold_training, "JointTraining", JointTraining)
    monkeypatch.setattr(FoldTraining, "_teachers", None)
    monkeypatch.setattr(FoldTraining, "_music", None)
    training = FoldTraining(pool=tmp_path, weights=tmp_path, run=tmp_path, device=torch.device("cpu"))
    torch.manual_seed(0)
    start, other = new_network(TAGS).eval(), new_network(TAGS).eval()
    training.train(1, start, data)
    training.train(1, start, data)
    assert JointTraining.runs == 1
    with pytest.raises(DataError, match=r"joint-1\.pt was trained with another plan or from other networks"):
        training.train(1, other, data)
