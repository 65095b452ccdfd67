"""A training run on disk: what it was asked, how far it is, and how it was judged.

<run>/run.json          data, split, seed, system and recipe
<run>/checkpoint.pt     everything needed to go on, rewritten after each epoch
<run>/teacher-1/        the same of the first network that it learns from, if there are any
<run>/network.pt        the finished network
<run>/evaluation.json   figures on tracks it never saw
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wholetrack_training.data.splits import Protocol, Split
from wholetrack_training.data.tracks import DataError, TrackSet
from wholetrack_training.fitting.evaluation import Evaluation, evaluate
from wholetrack_training.fitting.fitting import Fit, classifier
from wholetrack_training.systems import SYSTEMS
from wholetrack_training.systems.recipe import Recipe


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What a run was asked to do.

    Attributes:
        data: name of the data set, for the record.
        protocol: how the tracks were divided.
        part: number of the random split or of the fold.
        seed: of the training.
        labels: genres, in label order.
        split: names of the tracks on each side.
    """

    data: str
    protocol: Protocol
    part: int
    seed: int
    labels: tuple[str, ...]
    split: Split


class Run:
    """A folder that holds one training."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fit(self, tracks: TrackSet, spec: RunSpec, recipe: Recipe) -> Evaluation | None:
        """Train, or go on, and judge by the split's test tracks, if it has any.

        Raises:
            DifferentRunError: if the folder holds a training of something else.
            DataError: if a side of the split is empty that must not be.
        """
        needed = {
            "train": True,
            "validation": recipe.schedule.keep == "best",
            "test": spec.protocol is not Protocol.ALL,
        }
        for side, is_needed in needed.items():
            if is_needed and not getattr(spec.split, side):
                raise DataError(f"there are too few tracks: none is left for {side}")
        train, validation = tracks.named(spec.split.train), tracks.named(spec.split.validation)
        fits = [
            Fit(
                recipe.changed({"schedule.teachers": 0, "schedule.taught": 0.0}),
                train,
                validation,
                seed=spec.seed + number,
                folder=self.folder / f"teacher-{number}",
            )
            for number in range(1, recipe.schedule.teachers + 1)
        ]
        teachers = [teaching.run() for teaching in fits]
        fit = Fit(recipe, train, validation, seed=spec.seed, folder=self.folder, teachers=teachers)
        write_json(self.folder / "run.json", {**asdict(spec), "system": recipe.system, "recipe": recipe.as_dict()})
        network = fit.run()
        torch.save(network.state_dict(), self.folder / "network.pt")
        training = {
            "epochs": fit.progress.epoch,
            "best_epoch": fit.progress.best_epoch,
            "minutes": round(sum(one.progress.seconds for one in (*fits, fit)) / 60, 1),
            "history": fit.progress.history,
        }
        return self._judge(tracks, network, training)

    def evaluate(self, tracks: TrackSet) -> Evaluation | None:
        """Judge the finished network once more by the test tracks of its spec, if there are any."""
        written = self.figures()
        training = {key: written[key] for key in ("epochs", "best_epoch", "minutes", "history")}
        return self._judge(tracks, self.network(), training)

    def _judge(self, tracks: TrackSet, network: nn.Module, training: dict[str, Any]) -> Evaluation | None:
        recipe, judged = self.recipe(), None
        if test := self.spec().split.test:
            judged = evaluate(
                tracks.named(test),
                classifier(network),
                features=recipe.features,
                windows=recipe.windows,
                audio=recipe.audio,
            )
        write_json(self.folder / "evaluation.json", {**(judged.as_dict() if judged else {}), **training})
        return judged

    def spec(self) -> RunSpec:
        """What the run was asked."""
        document = self._read("run.json")
        del document["system"], document["recipe"]
        split = Split(**{side: tuple(names) for side, names in document.pop("split").items()})
        protocol, labels = Protocol(document.pop("protocol")), tuple(document.pop("labels"))
        return RunSpec(**document, protocol=protocol, labels=labels, split=split)

    def recipe(self) -> Recipe:
        """The recipe it followed."""
        document = self._read("run.json")
        return SYSTEMS[document["system"]].from_dict(document["recipe"])

    def network(self) -> nn.Module:
        """The finished network, in evaluation mode."""
        network = self.recipe().network(len(self.spec().labels))
        network.load_state_dict(torch.load(self.folder / "network.pt", weights_only=True))
        return network.eval()

    def figures(self) -> dict[str, Any]:
        """How it was judged, as written when it ended."""
        return self._read("evaluation.json")

    def _read(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        if not path.is_file():
            raise DataError(f"{self.folder} holds no finished run: {name} is missing")
        document: dict[str, Any] = json.loads(path.read_text())
        return document


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a JSON file that is either complete or not there."""
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(json.dumps(document, indent=2) + "\n")
    unfinished.replace(path)
