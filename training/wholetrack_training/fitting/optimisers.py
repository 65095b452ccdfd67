"""Optimisers and learning-rate schedulers by the names that recipes use."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau

from wholetrack_training.systems.schedule import Schedule

_OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
}


def build_optimiser(schedule: Schedule, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Return a new optimiser for the parameters of a network."""
    return _OPTIMISERS[schedule.optimiser](parameters, lr=schedule.learning_rate, weight_decay=schedule.weight_decay)


def build_rate_scheduler(
    schedule: Schedule, optimiser: torch.optim.Optimizer, *, steps: int
) -> OneCycleLR | ReduceLROnPlateau | None:
    """Return a new scheduler of the learning rate, or None if it is constant.

    Args:
        schedule: Determines the kind of scheduler.
        optimiser: The optimiser whose learning rate changes.
        steps: Number of training steps over all epochs.
    """
    match schedule.rate:
        case "one-cycle":
            return OneCycleLR(optimiser, max_lr=schedule.learning_rate, total_steps=steps, pct_start=schedule.warm_up)
        case "plateau":
            return ReduceLROnPlateau(optimiser, factor=0.5, patience=5)
        case "constant":
            return None
