"""Gradient descent with averaged weights and checkpoints, for both stages in which taggers teach."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from wholetrack_training.errors import DifferentRunError
from wholetrack_training.systems.checkpoints import read_tensors, write_tensors

_log = logging.getLogger(__name__)

_LOG_STEPS = 50
_MAX_GRADIENT = 5.0
_SAVE_STEPS = 20
# Larger than any number of steps, so that no two runs share a seed.
_SEED_STRIDE = 1_000_003


@dataclass(frozen=True, slots=True)
class TeachingSchedule:
    """How weights follow the losses.

    Attributes:
        steps: Number of batches.
        warm_up: Batches until the learning rate is reached; then it falls to zero as half a cosine.
        weight_decay: Decoupled weight decay.
        averaging: Share of the averaged weights that is kept in each step; the averaged weights are the result.
    """

    steps: int
    warm_up: int
    weight_decay: float
    averaging: float

    def factor(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0, relative to its maximum."""
        return min(1.0, (step + 1) / self.warm_up) * (0.5 + 0.5 * math.cos(math.pi * step / self.steps))


def teach(
    network: nn.Module,
    losses: Callable[[], dict[str, Tensor]],
    rates: Sequence[tuple[nn.Module, float]],
    schedule: TeachingSchedule,
    *,
    device: torch.device,
    seed: int,
    plan: str,
    checkpoint: Path,
) -> None:
    """Minimise the sum of some losses, or continue an interrupted run.

    Afterwards the network has the averaged weights. The statistics of batch normalisation stay as they were published:
    those of music that is unlike the music of AudioSet undo what a network knows.

    Args:
        network: The network; changed in place.
        losses: Draws a batch and returns the losses by name.
        rates: Parts of the network, which together have all its parameters, with the learning rate of each.
        schedule: How the weights follow the losses.
        device: Where the network is.
        seed: Seed of all randomness. Every step has its own, so that a run that continues draws the same as if
            it had not been interrupted.
        plan: Everything that distinguishes the run from others, as text.
        checkpoint: File from which an interrupted run continues; its folder must exist.

    Raises:
        DifferentRunError: If the checkpoint belongs to a run with another plan.
    """
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    average = get_ema_multi_avg_fn(schedule.averaging)  # type: ignore[no-untyped-call]
    averaged = AveragedModel(network, multi_avg_fn=average)
    optimiser = torch.optim.AdamW(
        [{"params": [*part.parameters()]} for part, _ in rates], weight_decay=schedule.weight_decay
    )
    stored = _Checkpoint(checkpoint, plan, {"network": network, "averaged": averaged, "optimiser": optimiser})
    progress = _Progress(schedule.steps)
    for step in range(stored.restore(device), schedule.steps):
        for group, (_, rate) in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * schedule.factor(step)
        torch.manual_seed(seed * _SEED_STRIDE + step)
        found = losses()
        optimiser.zero_grad(set_to_none=True)
        torch.stack([*found.values()]).sum().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), _MAX_GRADIENT)
        optimiser.step()
        averaged.update_parameters(network)
        progress.add(step + 1, found)
        stored.save_sometimes(step + 1, schedule.steps)
    network.load_state_dict(averaged.module.state_dict())


class _Progress:
    """Logs the mean of each loss over some steps."""

    def __init__(self, steps: int) -> None:
        self._steps, self._began = steps, time.monotonic()
        self._sums: dict[str, Tensor] = {}
        self._added = 0

    def add(self, step: int, losses: Mapping[str, Tensor]) -> None:
        """Add the losses of a step, counted from 1."""
        for name, loss in losses.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(loss)) + loss.detach()
        self._added += 1
        if step % _LOG_STEPS == 0 or step == self._steps:
            means = ", ".join(f"{name} {float(total) / self._added:.3f}" for name, total in self._sums.items())
            _log.info("Step %d/%d: %s, %.0f s", step, self._steps, means, time.monotonic() - self._began)
            self._sums, self._added = {}, 0


class _Checkpoint:
    """A file from which an interrupted run continues."""

    def __init__(self, path: Path, plan: str, parts: Mapping[str, Any]) -> None:
        """Describe a checkpoint.

        Args:
            path: The file; its folder must exist.
            plan: Everything that distinguishes the run from others, as text.
            parts: Networks and optimisers, by name.
        """
        self._path, self._plan, self._parts = path, plan, parts

    def restore(self, device: torch.device) -> int:
        """Read the checkpoint, if there is one, and return the number of completed steps.

        Raises:
            DifferentRunError: If it belongs to a run with another plan.
        """
        if not self._path.exists():
            return 0
        state = read_tensors(self._path, device)
        if state["plan"] != self._plan:
            raise DifferentRunError(f"{self._path} belongs to a run with another plan; choose another folder")
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        return int(state["step"])

    def save_sometimes(self, step: int, steps: int) -> None:
        """Write the checkpoint after some of the steps and after the last."""
        if step % _SAVE_STEPS and step != steps:
            return
        state = {name: part.state_dict() for name, part in self._parts.items()}
        write_tensors(self._path, {"plan": self._plan, "step": step} | state)
