"""Confusion matrices and learning curves as SVG files; the same records always give the same file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from wholetrack_training.data.splits import Protocol
from wholetrack_training.results.records import Record


def draw_confusion(records: Sequence[Record], path: Path) -> None:
    """Draw the number of tracks by true and predicted genre, over all folds, or over all runs if there are no folds."""
    chosen = [record for record in records if record.protocol == Protocol.ARTIST_FILTERED] or list(records)
    counts = np.sum([record.figures.confusion for record in chosen], axis=0)
    labels = chosen[0].labels
    with style():
        figure = Figure(figsize=(4.6, 4.2), layout="constrained")
        axes = figure.subplots()
        axes.imshow(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
        axes.set_yticks(range(len(labels)), labels)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.set_title(f"{chosen[0].protocol}, {len(chosen)} run{'s' if len(chosen) > 1 else ''}")
        for row, column in np.ndindex(counts.shape):
            if counts[row, column]:
                dark = counts[row, column] > counts[row].sum() / 2
                axes.text(column, row, str(counts[row, column]), ha="center", va="center", color="w" if dark else "k")
        save(figure, path)


def draw_learning(records: Sequence[Record], path: Path) -> None:
    """Draw training and validation loss and validation accuracy by epoch, one line per run."""
    with style():
        figure = Figure(figsize=(7.2, 2.6), layout="constrained")
        losses, accuracies = figure.subplots(1, 2)
        for record in records:
            epochs = range(1, record.training.epochs + 1)
            (line,) = losses.plot(epochs, _by_epoch(record, "train_loss"), ":", linewidth=0.9)
            losses.plot(epochs, _by_epoch(record, "validation_loss"), color=line.get_color(), linewidth=0.9)
            name = f"{record.protocol} {record.part}"
            accuracies.plot(epochs, _by_epoch(record, "validation_track_accuracy"), linewidth=0.9, label=name)
        losses.set_xlabel("epoch")
        losses.set_ylabel("validation loss (dotted: training)")
        accuracies.set_xlabel("epoch")
        accuracies.set_ylabel("validation track accuracy")
        accuracies.legend(frameon=False, fontsize=6)
        save(figure, path)


def style() -> AbstractContextManager[None]:
    """Return a matplotlib context with small text, stored as text, and with reproducible SVG ids."""
    return mpl.rc_context({"svg.hashsalt": "wholetrack", "svg.fonttype": "none", "font.size": 8})


def save(figure: Figure, path: Path) -> None:
    """Write a figure without its date, so that it does not differ from run to run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None, "Creator": None})


def _by_epoch(record: Record, name: str) -> Sequence[float]:
    """Return a figure by epoch; NaN, which leaves a gap, if the run did not validate."""
    return record.training.history.get(name, (math.nan,) * record.training.epochs)
