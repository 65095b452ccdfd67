"""Training of one network, with a checkpoint after every epoch from which an interrupted run continues."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from wholetrack_training.data.tracks import TrackSet
from wholetrack_training.errors import DifferentRunError, RecipeError
from wholetrack_training.fitting.bundle_teacher import BundleTeacher
from wholetrack_training.fitting.classifier import classifier
from wholetrack_training.fitting.evaluation import evaluate
from wholetrack_training.fitting.optimisers import build_optimiser, build_rate_scheduler
from wholetrack_training.systems.recipe import Recipe

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Progress:
    """How far a training run has progressed.

    Attributes:
        epoch: Number of finished epochs.
        best_epoch: The epoch whose weights are kept so far.
        best_loss: Validation loss of that epoch.
        seconds: Training time so far in seconds, over all processes that worked on the run.
        history: Figures of every finished epoch.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_loss: float = math.inf
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


class Trainer:
    """A network in training, with its optimiser and progress. A checkpoint holds all of its state.

    Attributes:
        network: The network that is trained.
        progress: How far the training has progressed.
        checkpoint: Path of the checkpoint.
    """

    def __init__(
        self,
        recipe: Recipe,
        train: TrackSet,
        validation: TrackSet,
        *,
        seed: int,
        folder: Path,
        teachers: Sequence[nn.Module] = (),
    ) -> None:
        """Start a run, or continue from the checkpoint in ``folder``.

        Args:
            recipe: What to train and how.
            train: Tracks to train on.
            validation: Tracks for early stopping.
            seed: Seed of all randomness.
            folder: Folder of the checkpoint; created if missing.
            teachers: Trained networks whose mean prediction is part of the target.

        Raises:
            DifferentRunError: If the checkpoint belongs to another run.
            RecipeError: If the recipe has an impossible value, or its learning rate depends on validation and there
                is none.
        """
        if recipe.schedule.rate == "plateau" and recipe.schedule.keep == "last":
            raise RecipeError("schedule.rate=plateau needs validation: set schedule.keep=best")
        self.recipe, self.train, self.validation, self.seed = recipe, train, validation, seed
        self.teachers = [teacher.eval() for teacher in teachers]
        self.checkpoint = folder / "checkpoint.pt"
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(seed)
        try:
            self._build()
        except ValueError as error:
            raise RecipeError(f"the recipe of {recipe.system} has an impossible value: {error}") from error
        self.progress = Progress()
        # bfloat16 halves the training time on CPUs with AVX512-BF16. Others emulate it, which is slow.
        self.use_bfloat16 = bool(torch.cpu._is_avx512_bf16_supported())  # noqa: SLF001 - there is no public function
        if self.checkpoint.exists():
            self._resume()

    def run(self) -> nn.Module:
        """Train to the last epoch, or until the validation loss has not improved for ``patience`` epochs.

        Returns:
            The network with the averaged weights of the best or the last epoch, as the schedule says, in evaluation
            mode.
        """
        while self.progress.epoch < self.recipe.schedule.epochs and not self._should_stop():
            began = time.monotonic()
            train_loss = self._train_epoch()
            progress = self.progress
            progress.epoch += 1
            entry = {"train_loss": train_loss} | (self._validate() if self._validates else {})
            if not self._validates:
                self._keep_weights()
            progress.seconds += time.monotonic() - began
            progress.history.append(entry)
            self._save()
            figures = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in entry.items())
            _log.info("Epoch %d/%d: %s", progress.epoch, self.recipe.schedule.epochs, figures)
        self.network.load_state_dict(self.best)
        return self.network.eval()

    def _build(self) -> None:
        recipe, schedule = self.recipe, self.recipe.schedule
        network = recipe.network(len(self.train.labels))
        self.network: nn.Module = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        average = get_ema_multi_avg_fn(schedule.averaging)  # type: ignore[no-untyped-call]
        self.average = AveragedModel(self.network, multi_avg_fn=average, use_buffers=True)
        self.best = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.optimiser = build_optimiser(schedule, self.network.parameters())
        steps = schedule.epochs * recipe.batches_per_epoch(self.train)
        self.rate_scheduler = build_rate_scheduler(schedule, self.optimiser, steps=steps)

    @property
    def _validates(self) -> bool:
        return self.recipe.schedule.keep == "best"

    def _should_stop(self) -> bool:
        if not self._validates:
            return False
        return self.progress.epoch - self.progress.best_epoch >= self.recipe.schedule.patience

    def _validate(self) -> dict[str, float]:
        found = evaluate(
            self.validation,
            classifier(self.average.module),
            features=self.recipe.features,
            # Windows without overlap give nearly the same loss for a third of the work.
            windows=self.recipe.windows.model_copy(update={"hop_s": self.recipe.windows.window_s}),
            audio=self.recipe.audio,
        )
        if found.window_loss < self.progress.best_loss:
            self.progress.best_loss = found.window_loss
            self._keep_weights()
        if isinstance(self.rate_scheduler, ReduceLROnPlateau):
            self.rate_scheduler.step(found.window_loss)
        return {
            "validation_loss": found.window_loss,
            "validation_window_accuracy": found.window_accuracy,
            "validation_track_accuracy": found.track_accuracy_summed,
        }

    def _keep_weights(self) -> None:
        self.progress.best_epoch = self.progress.epoch
        self.best = {name: value.clone() for name, value in self.average.module.state_dict().items()}

    def _train_epoch(self) -> float:
        """Train for one epoch and return the mean loss."""
        # All randomness of an epoch follows from the seed and its number, so a resumed run does not repeat or skip any.
        rng = np.random.default_rng([self.seed, self.progress.epoch])
        torch.manual_seed(int(rng.integers(2**63)))
        self.network.train()
        losses = []
        for windows_of_batch, targets_of_batch in self.recipe.batches(self.train, rng):
            windows, targets = torch.from_numpy(windows_of_batch), torch.from_numpy(targets_of_batch)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.use_bfloat16):
                logits = self.network(windows)
                if self.teachers:
                    targets = torch.lerp(targets, self._taught(windows), self.recipe.schedule.distillation)
            loss = _loss(logits.float(), targets, self.recipe.schedule.label_smoothing)
            self.optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            self.optimiser.step()
            if isinstance(self.rate_scheduler, OneCycleLR):
                self.rate_scheduler.step()
            self.average.update_parameters(self.network)
            losses.append(loss.item())
        return float(np.mean(losses))

    @torch.no_grad()
    def _taught(self, windows: Tensor) -> Tensor:
        """Return the mean prediction of the teachers for a batch of windows, ``[N, n_labels]``."""
        predictions = [torch.softmax(teacher(windows).float(), dim=-1) for teacher in self.teachers]
        return torch.stack([share if share.ndim == 2 else share.mean(1) for share in predictions]).mean(0)

    def _identity(self) -> dict[str, Any]:
        published = [teacher.sha256 for teacher in self.teachers if isinstance(teacher, BundleTeacher)]
        return {
            "system": self.recipe.system,
            "recipe": self.recipe.as_dict(),
            "seed": self.seed,
            "train": [track.name for track in self.train.tracks],
            "validation": [track.name for track in self.validation.tracks],
            # Absent without any, as in the checkpoints of earlier versions.
            **({"taught_by": published} if published else {}),
        }

    def _save(self) -> None:
        state = {
            "identity": json.dumps(self._identity()),
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "best": self.best,
            "optimiser": self.optimiser.state_dict(),
            "rate": self.rate_scheduler.state_dict() if self.rate_scheduler else None,
            "progress": asdict(self.progress),
        }
        unfinished = self.checkpoint.with_suffix(".unfinished")
        torch.save(state, unfinished)
        unfinished.replace(self.checkpoint)

    def _resume(self) -> None:
        state = torch.load(self.checkpoint, weights_only=True)
        if not self._is_same_run(json.loads(state["identity"])):
            raise DifferentRunError(
                f"{self.checkpoint} belongs to a run with another recipe, seed or set of tracks; "
                "choose another folder, or delete the checkpoint to start again"
            )
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.best = state["best"]
        self.optimiser.load_state_dict(state["optimiser"])
        if self.rate_scheduler:
            self.rate_scheduler.load_state_dict(state["rate"])
        self.progress = Progress(**state["progress"])
        _log.info("Resumed after epoch %d", self.progress.epoch)

    def _is_same_run(self, saved: dict[str, Any]) -> bool:
        own = self._identity()
        if saved["system"] != own["system"]:
            return False
        # The checkpoint may come from a version whose recipe had other field names or fewer fields.
        recipe = type(self.recipe).from_dict(saved["recipe"]).as_dict()
        return {**saved, "recipe": recipe} == own


def _loss(logits: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """Return the cross-entropy; for a network that classifies every step, that of the mean of the probabilities."""
    if logits.ndim == 3:
        logits = torch.log_softmax(logits, dim=-1).logsumexp(dim=1)
    return nn.functional.cross_entropy(logits, targets, label_smoothing=label_smoothing)
