"""Records of finished runs: how a network was trained and how accurate it is, without its weights."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter

from wholetrack_training.data.splits import Protocol
from wholetrack_training.errors import DataError
from wholetrack_training.export.operations import mflop_per_window
from wholetrack_training.export.to_onnx import export_onnx
from wholetrack_training.fitting.evaluation import Evaluation
from wholetrack_training.fitting.runs import TRAINING_FIGURES, Run

BASELINE = "timbre-svm"
"""The ``system`` of the records of the baseline (:mod:`.baseline`)."""


@dataclass(frozen=True, slots=True)
class Training:
    """The history of a training run.

    Attributes:
        epochs: Number of epochs.
        best_epoch: The epoch whose weights were kept.
        minutes: Training time in minutes.
        history: Loss and validation figures by name, one value per epoch; empty if there were no epochs.
    """

    epochs: int
    best_epoch: int
    minutes: float
    history: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Record:
    """One finished run without its weights.

    Attributes:
        date: When it was recorded, ISO 8601.
        data: Name of the data set.
        protocol: How the tracks were split.
        part: Number of the random split or of the fold.
        seed: Seed of the training.
        labels: Genres in label order.
        tracks: Number of tracks on each side of the split.
        system: Name of the system or of the baseline.
        recipe: All values of the recipe.
        parameters: Number of parameters of the network.
        mflop_per_window: Millions of operations per window; a multiplication and an addition count as two.
        figures: Evaluation on the test tracks.
        training: History of the training.
    """

    date: str
    data: str
    protocol: Protocol
    part: int
    seed: int
    labels: tuple[str, ...]
    tracks: dict[str, int]
    system: str
    recipe: dict[str, Any]
    parameters: int
    mflop_per_window: float
    figures: Evaluation
    training: Training

    @classmethod
    def of(cls, run: Run, *, mflop_per_window: float) -> Record:
        """Return the record of a finished run.

        Args:
            run: The run.
            mflop_per_window: Millions of operations of its network per window.

        Raises:
            DataError: If the run is not finished, or has no test tracks.
        """
        spec, recipe, network, figures = run.spec(), run.recipe(), run.network(), run.figures()
        if "n_tracks" not in figures:
            raise DataError(f"{run.folder} was trained on all tracks; none are left for evaluation")
        training = {name: figures.pop(name) for name in TRAINING_FIGURES}
        epochs = training.pop("history")
        return cls(
            date=today(),
            data=spec.data,
            protocol=spec.protocol,
            part=spec.part,
            seed=spec.seed,
            labels=spec.labels,
            tracks={side: len(names) for side, names in asdict(spec.split).items()},
            system=recipe.system,
            recipe=recipe.as_dict(),
            parameters=sum(parameter.numel() for parameter in network.parameters()),
            mflop_per_window=mflop_per_window,
            figures=TypeAdapter(Evaluation).validate_python(figures),
            training=Training(
                **training, history={name: tuple(epoch[name] for epoch in epochs) for name in (epochs or [{}])[0]}
            ),
        )

    @property
    def label(self) -> str:
        """The default label: system and window length, such as ``campana-crnn-3s``."""
        return f"{self.system}-{self.recipe['windows']['window_s']:g}s"


def record_run(run: Run) -> Record:
    """Return the record of a finished run; exports its network to count the operations.

    Raises:
        DataError: If the run is not finished, or has no test tracks.
        ExportError: If the network cannot be exported.
    """
    recipe = run.recipe()
    content = export_onnx(run.network(), frames=recipe.windows.frames, n_mels=recipe.features.n_mels)
    return Record.of(run, mflop_per_window=round(mflop_per_window(content), 1))


def today() -> str:
    """Return the date in UTC, ISO 8601."""
    return dt.datetime.now(tz=dt.UTC).date().isoformat()
