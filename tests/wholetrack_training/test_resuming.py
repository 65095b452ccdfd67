"""A training that is killed, however often and wherever, ends with the network of one that was left in peace."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

import torch

from tests.harness.paths import PROJECT
from tests.wholetrack_training.conftest import toy_set
from wholetrack_training.data.splits import Protocol, random_split
from wholetrack_training.fitting.runs import Run, RunSpec
from wholetrack_training.systems.recipe import Source
from wholetrack_training.systems.wholetrack_crnn import WholetrackCrnn

pytestmark = pytest.mark.torch

KILLS = 10
RECIPE = WholetrackCrnn.of(Source.PRECOMPUTED).changed(
    {
        "shape.channels": (4, 8, 8, 16, 16),
        "shape.hidden": 8,
        "windows_per_track": 4,
        "schedule.epochs": 20,
        "schedule.batch": 16,
    }
)
TRAIN = "import sys; from tests.wholetrack_training.test_resuming import train; train(sys.argv[1])"


def train(folder: str) -> None:
    """What is killed."""
    torch.set_num_threads(1)
    toys = toy_set()
    split = random_split(toys, seed=1, test=0.25)
    print("begins", flush=True)
    Run(Path(folder)).fit(toys, RunSpec("toys", Protocol.RANDOM, 1, 0, toys.labels, split), RECIPE)


def start(folder: Path) -> subprocess.Popen[bytes]:
    """A training that is just about to begin, or to go on."""
    process = subprocess.Popen([sys.executable, "-c", TRAIN, str(folder)], cwd=PROJECT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"begins\n"
    return process


def test_killed_at_ten_random_moments_the_network_is_the_same(tmp_path: Path, rng: np.random.Generator) -> None:
    peaceful, killed = tmp_path / "peaceful", tmp_path / "killed"
    with start(peaceful) as process:
        began = time.monotonic()
        assert process.wait() == 0
        whole_s = time.monotonic() - began
    unfinished = 0
    for wait_s in rng.uniform(0, whole_s / 4, KILLS):
        with start(killed) as process:
            time.sleep(wait_s)
            unfinished += process.poll() is None
            process.kill()
    with start(killed) as process:
        assert process.wait() == 0
    assert unfinished >= KILLS / 2
    one, other = (torch.load(folder / "network.pt", weights_only=True) for folder in (peaceful, killed))
    assert all(torch.equal(one[name], other[name]) for name in one)
    here, there = (json.loads((folder / "evaluation.json").read_text()) for folder in (peaceful, killed))
    assert here["history"] == there["history"]
