"""Training with early stopping, from a checkpoint that survives being killed between any two epochs."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from wholetrack_training.data.tracks import TrackSet
from wholetrack_training.fitting.evaluation import Classify, evaluate
from wholetrack_training.systems.recipe import Recipe, Schedule

_log = logging.getLogger(__name__)

_OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
}


class DifferentRunError(Exception):
    """A checkpoint was left by a training with another recipe, seed or set of tracks."""


@dataclass(slots=True)
class _Progress:
    epoch: int = 0
    best_epoch: int = 0
    best_loss: float = math.inf
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


class Fit:
    """One training: its network, optimiser and progress, all of which a checkpoint holds."""

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
        """Start, or go on where a checkpoint in ``folder`` stopped.

        Args:
            recipe: to follow.
            train: tracks to learn from.
            validation: tracks to stop early by.
            seed: of all chance.
            folder: of the checkpoint.
            teachers: finished networks whose mean answer is a part of the target.

        Raises:
            DifferentRunError: if the checkpoint belongs to another training.
        """
        if recipe.schedule.rate == "plateau" and recipe.schedule.keep == "last":
            raise ValueError("a rate that waits for a plateau needs validation: schedule.keep must be best")
        self.recipe, self.train, self.validation, self.seed = recipe, train, validation, seed
        self.teachers = [teacher.eval() for teacher in teachers]
        self.checkpoint = folder / "checkpoint.pt"
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(seed)
        network, schedule = recipe.network(len(train.labels)), recipe.schedule
        self.network: nn.Module = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        average = get_ema_multi_avg_fn(schedule.averaging)  # type: ignore[no-untyped-call]
        self.average = AveragedModel(self.network, multi_avg_fn=average, use_buffers=True)
        self.best = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.optimiser = _OPTIMISERS[schedule.optimiser](
            self.network.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay
        )
        self.rate = _rate(self.optimiser, schedule, steps=schedule.epochs * recipe.batches_per_epoch(train))
        self.progress = _Progress()
        # bfloat16 halves the time where the processor has it (AVX512-BF16) and is emulated, slowly, where not.
        self.half_width = bool(torch.cpu._is_avx512_bf16_supported())  # noqa: SLF001 - there is no public one
        if self.checkpoint.exists():
            self._resume()

    def run(self) -> nn.Module:
        """Train to the last epoch, or until validation has not improved for ``patience`` epochs.

        Returns:
            The averaged network of the best epoch, or of the last, as the schedule says, ready to classify.
        """
        while self.progress.epoch < self.recipe.schedule.epochs and not self._out_of_patience():
            began = time.monotonic()
            train_loss = self._epoch()
            progress = self.progress
            progress.epoch += 1
            entry = {"train_loss": train_loss} | (self._validate() if self._validates else {})
            if not self._validates:
                self._keep()
            progress.seconds += time.monotonic() - began
            progress.history.append(entry)
            self._save()
            figures = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in entry.items())
            _log.info("epoch %d/%d: %s", progress.epoch, self.recipe.schedule.epochs, figures)
        self.network.load_state_dict(self.best)
        return self.network.eval()

    @property
    def _validates(self) -> bool:
        return self.recipe.schedule.keep == "best"

    def _validate(self) -> dict[str, float]:
        judged = evaluate(
            self.validation,
            classifier(self.average.module),
            features=self.recipe.features,
            # Side by side, not overlapping: nearly the same loss for a third of the work.
            windows=self.recipe.windows.model_copy(update={"hop_s": self.recipe.windows.window_s}),
            audio=self.recipe.audio,
        )
        if judged.window_loss < self.progress.best_loss:
            self.progress.best_loss = judged.window_loss
            self._keep()
        if isinstance(self.rate, ReduceLROnPlateau):
            self.rate.step(judged.window_loss)
        return {
            "validation_loss": judged.window_loss,
            "validation_window_accuracy": judged.window_accuracy,
            "validation_track_accuracy": judged.track_accuracy_summed,
        }

    def _keep(self) -> None:
        self.progress.best_epoch = self.progress.epoch
        self.best = {name: value.clone() for name, value in self.average.module.state_dict().items()}

    def _out_of_patience(self) -> bool:
        if not self._validates:
            return False
        return self.progress.epoch - self.progress.best_epoch >= self.recipe.schedule.patience

    def _epoch(self) -> float:
        # All chance of an epoch follows from the seed and its number: resuming repeats nothing and skips nothing.
        rng = np.random.default_rng([self.seed, self.progress.epoch])
        torch.manual_seed(int(rng.integers(2**63)))
        self.network.train()
        losses = []
        for windows, targets in self.recipe.batches(self.train, rng):
            heard, wanted = torch.from_numpy(windows), torch.from_numpy(targets)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.half_width):
                logits = self.network(heard)
                if self.teachers:
                    wanted = torch.lerp(wanted, self._taught(heard), self.recipe.schedule.taught)
            loss = _loss(logits.float(), wanted, self.recipe.schedule.label_smoothing)
            self.optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            self.optimiser.step()
            if isinstance(self.rate, OneCycleLR):
                self.rate.step()
            self.average.update_parameters(self.network)
            losses.append(loss.item())
        return float(np.mean(losses))

    @torch.no_grad()
    def _taught(self, windows: Tensor) -> Tensor:
        """What the teachers say of windows, on average, ``[N, n_labels]``."""
        said = [torch.softmax(teacher(windows).float(), dim=-1) for teacher in self.teachers]
        return torch.stack([share if share.ndim == 2 else share.mean(1) for share in said]).mean(0)

    def _identity(self) -> dict[str, Any]:
        return {
            "system": self.recipe.system,
            "recipe": self.recipe.as_dict(),
            "seed": self.seed,
            "train": [track.name for track in self.train.tracks],
            "validation": [track.name for track in self.validation.tracks],
        }

    def _save(self) -> None:
        state = {
            "identity": json.dumps(self._identity()),
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "best": self.best,
            "optimiser": self.optimiser.state_dict(),
            "rate": self.rate.state_dict() if self.rate else None,
            "progress": asdict(self.progress),
        }
        unfinished = self.checkpoint.with_suffix(".unfinished")
        torch.save(state, unfinished)
        unfinished.replace(self.checkpoint)

    def _resume(self) -> None:
        state = torch.load(self.checkpoint, weights_only=True)
        if json.loads(state["identity"]) != self._identity():
            raise DifferentRunError(
                f"{self.checkpoint} belongs to a training with another recipe, seed or set of tracks; "
                "choose another folder, or delete it to start anew"
            )
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.best = state["best"]
        self.optimiser.load_state_dict(state["optimiser"])
        if self.rate:
            self.rate.load_state_dict(state["rate"])
        self.progress = _Progress(**state["progress"])
        _log.info("resumed after epoch %d", self.progress.epoch)


def _rate(optimiser: torch.optim.Optimizer, schedule: Schedule, *, steps: int) -> OneCycleLR | ReduceLROnPlateau | None:
    match schedule.rate:
        case "one-cycle":
            return OneCycleLR(optimiser, max_lr=schedule.learning_rate, total_steps=steps, pct_start=schedule.warm_up)
        case "plateau":
            return ReduceLROnPlateau(optimiser, factor=0.5, patience=5)
        case "constant":
            return None


def _loss(logits: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """Cross-entropy, of the mean over time of the probabilities where there is a belief at every step."""
    if logits.ndim == 3:
        logits = torch.log_softmax(logits, dim=-1).logsumexp(dim=1)
    return nn.functional.cross_entropy(logits, targets, label_smoothing=label_smoothing)


def classifier(network: nn.Module) -> Classify:
    """The network as a function from normalised windows to probabilities, in float32."""

    def classify(windows: NDArray[np.float32]) -> NDArray[np.float32]:
        network.eval()
        with torch.inference_mode():
            logits = network(torch.from_numpy(windows))
        probabilities: NDArray[np.float32] = torch.softmax(logits, dim=-1).numpy()
        return probabilities

    return classify
