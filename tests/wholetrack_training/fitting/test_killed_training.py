"""A training run that is killed at random moments ends with the same network as one that is not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

import torch

from tests.harness.paths import PROJECT
from tests.wholetrack_training.killing import KILLS

pytestmark = pytest.mark.torch


@pytest.mark.long
def test_a_training_run_killed_at_ten_random_moments_gives_the_same_network(tmp_path: Path) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    program = [sys.executable, "-m", "tests.wholetrack_training.killing", "train"]
    done = subprocess.run([*program, undisturbed, killed], cwd=PROJECT, check=True, stdout=subprocess.PIPE)
    assert json.loads(done.stdout)["killed"] == KILLS
    one, other = (torch.load(folder / "network.pt", weights_only=True) for folder in (undisturbed, killed))
    assert all(torch.equal(one[name], other[name]) for name in one)
    one, other = (json.loads((folder / "evaluation.json").read_text()) for folder in (undisturbed, killed))
    assert one["history"] == other["history"]
