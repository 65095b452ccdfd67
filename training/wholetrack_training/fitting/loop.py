"""What both stages of the training of wholetrack-crnn 2 share: learning rates, averaging, checkpoints."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from wholetrack_training.errors import DifferentRunError

_log = logging.getLogger(__name__)

_LOG_STEPS = 50
_SAVE_STEPS = 500


def set_rates(optimiser: torch.optim.Optimizer, rates: Sequence[float], *, step: int, steps: int, warm_up: int) -> None:
    """Set the learning rate of each group of parameters: a linear warm-up, then half a cosine to zero."""
    factor = min(1.0, (step + 1) / warm_up) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
    for group, rate in zip(optimiser.param_groups, rates, strict=True):
        group["lr"] = rate * factor


def keep_statistics(network: nn.Module) -> None:
    """Switch to training, but keep the published statistics of batch normalisation.

    Those of unlabelled music that is unlike the music of AudioSet undo what a network knows.
    """
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def averaged_copy(network: nn.Module, kept: float) -> AveragedModel:
    """Return a copy whose weights follow those of a network as an exponential moving average."""
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(kept))


class Progress:
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


class Checkpoint:
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
        state = torch.load(self._path, weights_only=True, map_location=device)
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
        unfinished = self._path.with_suffix(".unfinished")
        torch.save({"plan": self._plan, "step": step} | state, unfinished)
        unfinished.replace(self._path)
