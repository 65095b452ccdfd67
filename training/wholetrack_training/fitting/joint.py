"""Fits what joins the two towers on stored outputs of the towers, of labelled windows and of unlabelled ones."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wholetrack_training.systems.taxonomy import GTZAN
from wholetrack_training.systems.two_towers import TowerOutputs, TwoTowerCrnn

_log = logging.getLogger(__name__)

UNLABELLED = -1
"""Genre of a window without a label."""


@dataclass(frozen=True, slots=True)
class TowerWindows:
    """Outputs of the towers for some windows, and what is known of the windows.

    Attributes:
        spectrum: Outputs of the spectrum tower, ``[N, 19, 128]``.
        music: Outputs of the music tower, ``[N, 9, 384]``.
        genre: Index into GTZAN's genres, or :data:`UNLABELLED`, ``[N]``.
        msd: What the taggers of the Million Song Dataset say of each genre, in deviations,
            ``[N, len(MSD_GENRES)]``; NaN if they were not asked.
        weight: How often a window is drawn, relative to the others, ``[N]``. The windows of a track share the weight of
            one window, so that long recordings do not count more than short ones.
    """

    spectrum: NDArray[np.float32]
    music: NDArray[np.float32]
    genre: NDArray[np.intp]
    msd: NDArray[np.float32]
    weight: NDArray[np.float64]

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.genre)


@dataclass(frozen=True, slots=True, kw_only=True)
class JointPlan:
    """How the joint head is fitted.

    Attributes:
        epochs: Passes over as many windows as there are.
        batch: Windows per batch.
        learning_rate: After a warm-up of twenty batches, falling to zero as a cosine.
        weight_decay: Decoupled weight decay; none for the weights of the score's parts.
        label_smoothing: Share of the target that is spread over GTZAN's genres.
        msd_weight: Weight of the difference from the taggers of the Million Song Dataset.
        seed: Seed of all randomness.
    """

    epochs: int = 6
    batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    msd_weight: float = 1.0
    seed: int = 0


def fit_joint_head(network: TwoTowerCrnn, windows: TowerWindows, plan: JointPlan) -> None:
    """Fit the head of a network in place; the towers, and mn04's own layers, stay as they are.

    Args:
        network: The network; the scale of its tag map must be set.
        windows: What to learn from.
        plan: How to fit.
    """
    torch.manual_seed(plan.seed)
    rng = np.random.default_rng(plan.seed)
    head = network.head
    for parameter in head.music.parameters():
        parameter.requires_grad = False
    parts = [head.map_weight, head.prior_weight]
    layers = [p for p in head.parameters() if p.requires_grad and all(p is not part for part in parts)]
    groups: list[dict[str, Any]] = [{"params": layers}, {"params": parts, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, weight_decay=plan.weight_decay)
    steps = plan.epochs * math.ceil(len(windows) / plan.batch)
    share = windows.weight / windows.weight.sum()
    network.eval()
    head.train()
    for step in range(steps):
        rate = plan.learning_rate * min(1.0, (step + 1) / 20) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss = _loss(network, windows, rng.choice(len(windows), plan.batch, p=share), plan)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(head.parameters(), 2.0)
        optimiser.step()
        if step % max(1, steps // plan.epochs) == 0:
            _log.info("Step %d/%d: loss %.3f", step, steps, float(loss.detach()))
    network.eval()


def _loss(network: TwoTowerCrnn, windows: TowerWindows, drawn: NDArray[np.intp], plan: JointPlan) -> Tensor:
    towers = TowerOutputs(torch.from_numpy(windows.spectrum[drawn]), torch.from_numpy(windows.music[drawn]))
    genre, said = torch.from_numpy(windows.genre[drawn]), torch.from_numpy(windows.msd[drawn])
    found = network.predict(towers)
    labelled, asked = genre != UNLABELLED, ~said.isnan()
    unlabelled = ~labelled & asked.all(1)
    loss = found.scores.new_zeros(())
    if labelled.any():
        # A label of GTZAN distinguishes its ten genres only. As a statement about the others it would suppress them.
        scores = found.scores[labelled, : len(GTZAN)]
        of_labels = nn.functional.cross_entropy(scores, genre[labelled], label_smoothing=plan.label_smoothing)
        loss = loss + of_labels * labelled.float().mean()
    if unlabelled.any():
        evidence = network.head.tag_map(found.tags[unlabelled].detach(), said[unlabelled])
        taught = nn.functional.cross_entropy(found.scores[unlabelled], torch.softmax(evidence, dim=1))
        loss = loss + taught * unlabelled.float().mean()
    if asked.any():
        loss = loss + plan.msd_weight * (found.msd - said)[asked].square().mean()
    return loss
