"""How a network is fitted: optimiser, learning rate, early stopping, weight averaging, distillation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How a network is fitted.

    Attributes:
        optimiser: Name of the optimiser.
        learning_rate: Learning rate of all weights; the peak of a one-cycle schedule.
        weight_decay: Decoupled for AdamW, a penalty for the others.
        rate: Schedule of the learning rate: ``one-cycle`` rises and falls once over all epochs (Smith 2018),
            ``plateau`` halves it whenever the validation loss has not improved for five epochs, ``constant`` keeps it.
        warm_up: Share of the steps during which a one-cycle learning rate rises.
        keep: Which weights to keep: those of the epoch with the ``best`` validation loss, or of the ``last`` epoch.
            With ``last`` there is no validation, and the validation tracks are used for training.
        epochs: Maximum number of epochs.
        patience: Training stops after this many epochs without a better validation loss.
        batch: Windows per step.
        label_smoothing: Share of the target that is spread over all genres.
        averaging: Decay per step of the moving average of the weights that is validated and kept; 0 keeps the weights
            themselves.
        teachers: Number of networks with the same recipe and other seeds that are trained first. They see the same
            windows as the network, and the mean of their predictions is part of its target, which distils an ensemble
            into one network (Hinton et al. 2015; Beyer et al. 2022).
        distillation: That part of the target, from 0 to 1.
    """

    optimiser: Literal["adam", "adamw", "rmsprop"] = "adam"
    learning_rate: float
    weight_decay: float = 0.0
    rate: Literal["one-cycle", "plateau", "constant"] = "constant"
    warm_up: float = 0.2
    keep: Literal["best", "last"] = "best"
    epochs: int
    patience: int = 0
    batch: int
    label_smoothing: float = 0.0
    averaging: float = 0.0
    teachers: int = 0
    distillation: float = 0.0
