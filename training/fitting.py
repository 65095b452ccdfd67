"""Training with early stopping, from a checkpoint that survives being killed between any two epochs."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from service.contracts import AudioSpec, FeatureSpec, RelativeToMax, WindowSpec
from service.features.normalise import normalise
from training.augmentation import Augmentation, change_colour, mask, mix_up, random_window
from training.evaluation import Classify, evaluate
from training.network import Crnn, CrnnShape
from training.tracks import TrackSet

_log = logging.getLogger(__name__)

GTZAN_AUDIO = AudioSpec(sample_rate=22050)
GTZAN_FEATURES = FeatureSpec(
    n_fft=2048,
    frames_per_second=13,
    n_mels=128,
    fmin=0.0,
    fmax=11025.0,
    floor=1e-10,
    normalisation=RelativeToMax(range_db=60.0),
)
THREE_SECONDS = WindowSpec(window_s=3.0, hop_s=1.0, frames=39, last_window="align_to_end")


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides a training but the tracks and the seed."""

    audio: AudioSpec = GTZAN_AUDIO
    features: FeatureSpec = GTZAN_FEATURES
    windows: WindowSpec = THREE_SECONDS
    network: CrnnShape = field(default_factory=CrnnShape)
    augmentation: Augmentation = field(default_factory=Augmentation)
    epochs: int = 60
    windows_per_track: int = 8
    batch: int = 64
    learning_rate: float = 2e-3
    warm_up: float = 0.2
    weight_decay: float = 0.02
    label_smoothing: float = 0.1
    averaging: float = 0.995
    patience: int = 20

    def as_dict(self) -> dict[str, Any]:
        """All fields as JSON values; two recipes are the same exactly if these are."""
        document: dict[str, Any] = _RECIPE.dump_python(self, mode="json")
        return document

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Recipe:
        """The recipe that :meth:`as_dict` wrote."""
        return _RECIPE.validate_python(document)


_RECIPE = TypeAdapter(Recipe)


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

    def __init__(self, recipe: Recipe, train: TrackSet, validation: TrackSet, *, seed: int, folder: Path) -> None:
        """Start, or go on where a checkpoint in ``folder`` stopped.

        Raises:
            DifferentRunError: if the checkpoint belongs to another training.
        """
        self.recipe, self.train, self.validation, self.seed = recipe, train, validation, seed
        self.checkpoint = folder / "checkpoint.pt"
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(seed)
        network = Crnn(recipe.network, n_mels=recipe.features.n_mels, n_labels=len(train.labels))
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        average = get_ema_multi_avg_fn(recipe.averaging)  # type: ignore[no-untyped-call]
        self.average = AveragedModel(self.network, multi_avg_fn=average, use_buffers=True)
        self.best = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.steps_per_epoch = math.ceil(len(train) * recipe.windows_per_track / recipe.batch)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser,
            max_lr=recipe.learning_rate,
            total_steps=recipe.epochs * self.steps_per_epoch,
            pct_start=recipe.warm_up,
        )
        self.progress = _Progress()
        # bfloat16 halves the time where the processor has it (AVX512-BF16) and is emulated, slowly, where not.
        self.half_width = bool(torch.cpu._is_avx512_bf16_supported())  # noqa: SLF001 - there is no public one
        if self.checkpoint.exists():
            self._resume()

    def run(self) -> Crnn:
        """Train to the last epoch, or until validation has not improved for ``patience`` epochs.

        Returns:
            The averaged network of the best epoch, ready to classify.
        """
        while self.progress.epoch < self.recipe.epochs and not self._out_of_patience():
            began = time.monotonic()
            train_loss = self._epoch()
            judged = evaluate(
                self.validation,
                classifier(self.average.module),
                features=self.recipe.features,
                # Side by side, not overlapping: nearly the same loss for a third of the work.
                windows=self.recipe.windows.model_copy(update={"hop_s": self.recipe.windows.window_s}),
                sample_rate=self.recipe.audio.sample_rate,
            )
            progress = self.progress
            progress.epoch += 1
            progress.seconds += time.monotonic() - began
            progress.history.append(
                {
                    "train_loss": train_loss,
                    "validation_loss": judged.window_loss,
                    "validation_window_accuracy": judged.window_accuracy,
                    "validation_track_accuracy": judged.track_accuracy_summed,
                }
            )
            if judged.window_loss < progress.best_loss:
                progress.best_loss, progress.best_epoch = judged.window_loss, progress.epoch
                self.best = {name: value.clone() for name, value in self.average.module.state_dict().items()}
            self._save()
            _log.info(
                "epoch %d/%d: train loss %.3f, validation loss %.3f, windows %.3f, tracks %.3f, %.0f s",
                progress.epoch,
                self.recipe.epochs,
                train_loss,
                judged.window_loss,
                judged.window_accuracy,
                judged.track_accuracy_summed,
                time.monotonic() - began,
            )
        self.network.load_state_dict(self.best)
        trained: Crnn = self.network.eval()
        return trained

    def _out_of_patience(self) -> bool:
        return self.progress.epoch - self.progress.best_epoch >= self.recipe.patience

    def _epoch(self) -> float:
        # All chance of an epoch follows from the seed and its number: resuming repeats nothing and skips nothing.
        rng = np.random.default_rng([self.seed, self.progress.epoch])
        torch.manual_seed(int(rng.integers(2**63)))
        self.network.train()
        losses = []
        for windows, targets in self._batches(rng):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.half_width):
                logits = self.network(windows)
            loss = nn.functional.cross_entropy(logits.float(), targets, label_smoothing=self.recipe.label_smoothing)
            self.optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            self.optimiser.step()
            self.schedule.step()
            self.average.update_parameters(self.network)
            losses.append(loss.item())
        return float(np.mean(losses))

    def _batches(self, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        recipe, n_labels = self.recipe, len(self.train.labels)
        order = rng.permutation(np.repeat(np.arange(len(self.train)), recipe.windows_per_track))
        identity = np.eye(n_labels, dtype=np.float32)
        for begin in range(0, len(order), recipe.batch):
            chosen = [self.train.tracks[i] for i in order[begin : begin + recipe.batch]]
            cut = np.stack([random_window(track, recipe.windows.frames, recipe.augmentation, rng) for track in chosen])
            windows = normalise(change_colour(cut, recipe.augmentation, rng), recipe.features.normalisation)
            targets = identity[[track.genre for track in chosen]]
            windows, targets = mix_up(mask(windows, recipe.augmentation, rng), targets, recipe.augmentation, rng)
            yield torch.from_numpy(windows), torch.from_numpy(targets)

    def _identity(self) -> dict[str, Any]:
        return {
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
            "schedule": self.schedule.state_dict(),
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
        self.schedule.load_state_dict(state["schedule"])
        self.progress = _Progress(**state["progress"])
        _log.info("resumed after epoch %d", self.progress.epoch)


def classifier(network: nn.Module) -> Classify:
    """The network as a function from normalised windows to probabilities, in float32."""

    def classify(windows: NDArray[np.float32]) -> NDArray[np.float32]:
        network.eval()
        with torch.inference_mode():
            logits = network(torch.from_numpy(windows))
        probabilities: NDArray[np.float32] = torch.softmax(logits, dim=1).numpy()
        return probabilities

    return classify
