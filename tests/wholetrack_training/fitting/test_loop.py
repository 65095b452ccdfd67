"""Gradient descent with averaged weights: results, interrupted runs, and batch statistics."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

import torch
from torch import Tensor, nn

from wholetrack_training.errors import DifferentRunError
from wholetrack_training.fitting import loop

pytestmark = pytest.mark.torch

SCHEDULE = loop.TeachingSchedule(steps=60, warm_up=5, weight_decay=0.0, averaging=0.9)


class InterruptionError(Exception):
    """Stands for the end of the process."""


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 1))


def run(net: nn.Module, checkpoint: Path, *, stop_after: int | None = None, plan: str = "plan") -> int:
    """Teach a network to return the sum of two inputs, and return the number of batches that were drawn."""
    drawn = 0

    def losses() -> dict[str, Tensor]:
        nonlocal drawn
        if drawn == stop_after:
            raise InterruptionError
        drawn += 1
        x = 2 * torch.rand(32, 1, 1, 1) - 1
        return {"error": (net(x)[:, 0] - 3 * x.flatten()).square().mean()}

    loop.teach(
        net, losses, [(net, 0.05)], SCHEDULE, device=torch.device("cpu"), seed=1, plan=plan, checkpoint=checkpoint
    )
    return drawn


def test_a_network_learns_and_keeps_its_batch_statistics(tmp_path: Path) -> None:
    net = network()
    before = net.state_dict()["1.running_mean"].clone()
    assert run(net, tmp_path / "checkpoint.pt") == SCHEDULE.steps
    net.eval()
    x = torch.tensor([-1.0, 0.5]).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(net(x)[:, 0], torch.tensor([-3.0, 1.5]), atol=0.2, rtol=0)
    torch.testing.assert_close(net.state_dict()["1.running_mean"], before)


def test_an_interrupted_run_continues_with_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_SAVE_STEPS", 10)
    whole, parts = network(), network()
    run(whole, tmp_path / "whole.pt")
    with pytest.raises(InterruptionError):
        run(parts, tmp_path / "parts.pt", stop_after=25)
    # The checkpoint is that of step 20.
    assert run(parts, tmp_path / "parts.pt") == SCHEDULE.steps - 20
    for own, expected in zip(parts.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(own, expected)


def test_a_run_with_another_plan_is_refused(tmp_path: Path) -> None:
    run(network(), tmp_path / "checkpoint.pt")
    with pytest.raises(DifferentRunError, match="belongs to a run with another plan"):
        run(network(), tmp_path / "checkpoint.pt", plan="another plan")


def test_the_learning_rate_rises_and_falls() -> None:
    factors = [SCHEDULE.factor(step) for step in range(SCHEDULE.steps)]
    assert factors[0] == pytest.approx(0.2)
    assert max(factors) == factors[4] > 0.98
    assert factors[-1] < 0.01
