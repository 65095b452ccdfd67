"""What runs were judged to be, as JSON files that outlive them: ``docs/results/<label>/<protocol>-<part>.json``."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from wholetrack_training.data.splits import Protocol
from wholetrack_training.data.tracks import DataError
from wholetrack_training.export.onnx_export import export_onnx, mflop_per_window
from wholetrack_training.fitting.runs import Run, write_json
from wholetrack_training.systems import SYSTEMS

METRICS = {Protocol.RANDOM: "random_split", Protocol.ARTIST_FILTERED: "artist_filtered"}
"""The name in ``model.json`` of each protocol's figures."""

AVERAGED = (
    "window_accuracy",
    "window_macro_f1",
    "track_accuracy_summed",
    "track_accuracy_voted",
    "track_macro_f1_summed",
    "track_macro_f1_voted",
    "top2",
    "top3",
    "ece",
)
"""Figures of a run whose mean and standard deviation over runs are stated."""


@dataclass(frozen=True, slots=True)
class Record:
    """One finished run without its weights.

    Attributes:
        date: when it was recorded.
        data: name of the data set.
        protocol: by which it was judged.
        part: number of the random split or of the fold.
        seed: of the training.
        labels: genres, in label order.
        tracks: how many were on each side of the split.
        system: which of the systems, or a baseline.
        recipe: all its values.
        parameters: of the network.
        mflop_per_window: of the network, a multiplication and an addition counted as two.
        figures: how it was judged, as :class:`~wholetrack_training.fitting.evaluation.Evaluation` has them.
        training: epochs, best epoch, minutes and the course of the losses.
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
    figures: dict[str, Any]
    training: dict[str, Any]

    @classmethod
    def of(cls, run: Run) -> Record:
        """The record of a finished run.

        Raises:
            DataError: if it is not finished, or was never judged.
        """
        spec, recipe, network, figures = run.spec(), run.recipe(), run.network(), run.figures()
        if "n_tracks" not in figures:
            raise DataError(f"{run.folder} learned from all tracks: none is left to judge it by")
        content = export_onnx(network, frames=recipe.windows.frames, n_mels=recipe.features.n_mels)
        training = {key: figures.pop(key) for key in ("epochs", "best_epoch", "minutes", "history")}
        return cls(
            date=dt.datetime.now(tz=dt.UTC).date().isoformat(),
            data=spec.data,
            protocol=spec.protocol,
            part=spec.part,
            seed=spec.seed,
            labels=spec.labels,
            tracks={side: len(names) for side, names in asdict(spec.split).items()},
            system=recipe.system,
            recipe=recipe.as_dict(),
            parameters=sum(parameter.numel() for parameter in network.parameters()),
            mflop_per_window=round(mflop_per_window(content), 1),
            figures=figures,
            training=training,
        )

    @property
    def label(self) -> str:
        """Where it belongs unless somebody says otherwise: its system and the length of its windows."""
        return f"{self.system}-{self.recipe['windows']['window_s']:g}s"

    def write(self, folder: Path) -> Path:
        """Write ``<folder>/<protocol>-<part>.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.protocol}-{self.part}.json"
        write_json(path, asdict(self))
        return path


def read_records(folder: Path) -> list[Record]:
    """All records of a folder, by protocol and part.

    What a recipe could not yet say when it was recorded has the value of its field, which leaves things as they were.
    """
    records = []
    for path in folder.glob("*.json"):
        document = json.loads(path.read_text())
        restored = {"protocol": Protocol(document["protocol"]), "labels": tuple(document["labels"])}
        record = Record(**{**document, **restored})
        system = SYSTEMS.get(record.system)
        records.append(replace(record, recipe=system.from_dict(record.recipe).as_dict()) if system else record)
    return sorted(records, key=lambda record: (record.protocol, record.part))


def summarise(records: Iterable[Record]) -> dict[str, dict[str, Any]]:
    """Mean and standard deviation over runs: ``random_split`` and ``artist_filtered``."""
    by_protocol: dict[Protocol, list[Record]] = {}
    for record in records:
        if record.protocol in METRICS:
            by_protocol.setdefault(record.protocol, []).append(record)
    return {METRICS[protocol]: _summary(group) for protocol, group in sorted(by_protocol.items())}


def _summary(records: Sequence[Record]) -> dict[str, Any]:
    entry: dict[str, Any] = {"runs": len(records), "tracks": sum(record.figures["n_tracks"] for record in records)}
    for name in AVERAGED:
        values = np.array([record.figures[name] for record in records])
        entry[name] = round(float(values.mean()), 4)
        if len(values) > 1:
            entry[f"{name}_sd"] = round(float(values.std(ddof=1)), 4)
    return entry
