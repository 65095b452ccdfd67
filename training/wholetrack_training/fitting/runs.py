"""A training run on disk: its specification, its checkpoint, its network and its evaluation.

<run>/run.json          data, split, seed, system and recipe
<run>/checkpoint.pt     state of the training, rewritten after each epoch
<run>/teacher-1/        the same for the first teacher network, if there are any
<run>/network.pt        the trained network
<run>/evaluation.json   figures on the test tracks, and the history of the training
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wholetrack_training.data.splits import Protocol, Split
from wholetrack_training.data.tracks import TrackSet
from wholetrack_training.errors import DataError
from wholetrack_training.files import write_json
from wholetrack_training.fitting.bundle_teacher import BundleTeacher
from wholetrack_training.fitting.classifier import classifier
from wholetrack_training.fitting.evaluation import Evaluation, evaluate
from wholetrack_training.fitting.trainer import Trainer
from wholetrack_training.systems.recipe import Recipe
from wholetrack_training.systems.registry import SYSTEMS

TRAINING_FIGURES = ("epochs", "best_epoch", "minutes", "history")
"""Figures in ``evaluation.json`` that describe the training, not the evaluation."""


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What a run trains on and how its tracks are split; together with a recipe it determines the network.

    Attributes:
        data: Name of the data set.
        protocol: How the tracks were split.
        part: Number of the random split or of the fold.
        seed: Seed of the training.
        labels: Genres in label order.
        split: Names of the tracks on each side.
        taught_by: SHA-256 of each published network that taught.
    """

    data: str
    protocol: Protocol
    part: int
    seed: int
    labels: tuple[str, ...]
    split: Split
    taught_by: tuple[str, ...] = ()


class Run:
    """A folder with one training run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fit(
        self, tracks: TrackSet, spec: RunSpec, recipe: Recipe, *, published: Sequence[BundleTeacher] = ()
    ) -> Evaluation | None:
        """Train a network, or continue, and evaluate it on the test tracks.

        Args:
            tracks: The data set.
            spec: What the run trains on.
            recipe: What to train and how.
            published: Published networks that teach, besides those that the schedule asks for.

        Returns:
            The evaluation; None if the split has no test tracks.

        Raises:
            DifferentRunError: If the folder holds another run.
            DataError: If a side of the split that the run needs is empty.
        """
        needed = {
            "train": True,
            "validation": recipe.schedule.keep == "best",
            "test": spec.protocol is not Protocol.ALL,
        }
        for side, is_needed in needed.items():
            if is_needed and not getattr(spec.split, side):
                raise DataError(f"there are too few tracks: none are left for {side}")
        train, validation = tracks.named(spec.split.train), tracks.named(spec.split.validation)
        teachers = [
            Trainer(
                recipe.changed({"schedule.teachers": 0, "schedule.distillation": 0.0}),
                train,
                validation,
                seed=spec.seed + number,
                folder=self.folder / f"teacher-{number}",
            )
            for number in range(1, recipe.schedule.teachers + 1)
        ]
        taught_by = [*(teacher.run() for teacher in teachers), *published]
        trainer = Trainer(recipe, train, validation, seed=spec.seed, folder=self.folder, teachers=taught_by)
        write_json(self.folder / "run.json", {**asdict(spec), "system": recipe.system, "recipe": recipe.as_dict()})
        network = trainer.run()
        torch.save(network.state_dict(), self.folder / "network.pt")
        training = {
            "epochs": trainer.progress.epoch,
            "best_epoch": trainer.progress.best_epoch,
            "minutes": round(sum(one.progress.seconds for one in (*teachers, trainer)) / 60, 1),
            "history": trainer.progress.history,
        }
        return self._evaluate(tracks, network, training)

    def evaluate(self, tracks: TrackSet) -> Evaluation | None:
        """Evaluate the trained network again on the test tracks; None if the split has none."""
        figures = self.figures()
        return self._evaluate(tracks, self.network(), {name: figures[name] for name in TRAINING_FIGURES})

    def spec(self) -> RunSpec:
        """Return the specification of the run."""
        document = self._read("run.json")
        del document["system"], document["recipe"]
        split = Split(**{side: tuple(names) for side, names in document.pop("split").items()})
        protocol, labels = Protocol(document.pop("protocol")), tuple(document.pop("labels"))
        taught_by = tuple(document.pop("taught_by", ()))
        return RunSpec(**document, protocol=protocol, labels=labels, split=split, taught_by=taught_by)

    def recipe(self) -> Recipe:
        """Return the recipe of the run."""
        document = self._read("run.json")
        return SYSTEMS[document["system"]].from_dict(document["recipe"])

    def network(self) -> nn.Module:
        """Return the trained network in evaluation mode."""
        network = self.recipe().network(len(self.spec().labels))
        path = self.folder / "network.pt"
        if not path.is_file():
            raise self._unfinished(path.name)
        network.load_state_dict(torch.load(path, weights_only=True))
        return network.eval()

    def figures(self) -> dict[str, Any]:
        """Return the figures of the evaluation and of the training, as written at the end of the run."""
        return self._read("evaluation.json")

    def _evaluate(self, tracks: TrackSet, network: nn.Module, training: dict[str, Any]) -> Evaluation | None:
        recipe, found = self.recipe(), None
        if test := self.spec().split.test:
            found = evaluate(
                tracks.named(test),
                classifier(network),
                features=recipe.features,
                windows=recipe.windows,
                audio=recipe.audio,
            )
        write_json(self.folder / "evaluation.json", {**(found.as_dict() if found else {}), **training})
        return found

    def _read(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        if not path.is_file():
            raise self._unfinished(name)
        document: dict[str, Any] = json.loads(path.read_text())
        return document

    def _unfinished(self, name: str) -> DataError:
        return DataError(f"{self.folder} does not hold a finished run: {name} is missing")
