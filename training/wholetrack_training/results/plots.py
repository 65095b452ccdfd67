"""Confusion matrices and learning curves, as SVG that is the same whenever it is drawn from the same records."""

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
    """Tracks by true and predicted genre, over all folds, or over all runs where there are no folds."""
    chosen = [record for record in records if record.protocol == Protocol.ARTIST_FILTERED] or list(records)
    counts = np.sum([record.figures["confusion"] for record in chosen], axis=0)
    labels = chosen[0].labels
    with style():
        figure = Figure(figsize=(4.6, 4.2), layout="constrained")
        axes = figure.subplots()
        axes.imshow(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
        axes.set_yticks(range(len(labels)), labels)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.set_title(f"{chosen[0].protocol}, {len(chosen)} runs")
        for row, column in np.ndindex(counts.shape):
            if counts[row, column]:
                dark = counts[row, column] > counts[row].sum() / 2
                axes.text(column, row, str(counts[row, column]), ha="center", va="center", color="w" if dark else "k")
        save(figure, path)


def draw_learning(records: Sequence[Record], path: Path) -> None:
    """Loss in training and validation by epoch, and the accuracy on validation tracks, every run a line."""
    with style():
        figure = Figure(figsize=(7.2, 2.6), layout="constrained")
        losses, accuracies = figure.subplots(1, 2)
        for record in records:
            epochs = range(1, len(record.training["history"]) + 1)
            (line,) = losses.plot(epochs, _course(record, "train_loss"), ":", linewidth=0.9)
            losses.plot(epochs, _course(record, "validation_loss"), color=line.get_color(), linewidth=0.9)
            name = f"{record.protocol} {record.part}"
            accuracies.plot(epochs, _course(record, "validation_track_accuracy"), linewidth=0.9, label=name)
        losses.set_xlabel("epoch")
        losses.set_ylabel("loss: validation, training dotted")
        accuracies.set_xlabel("epoch")
        accuracies.set_ylabel("validation tracks right")
        accuracies.legend(frameon=False, fontsize=6)
        save(figure, path)


def _course(record: Record, name: str) -> list[float]:
    """A figure by epoch; a gap where nothing was validated."""
    return [epoch.get(name, math.nan) for epoch in record.training["history"]]


def style() -> AbstractContextManager[None]:
    """Small letters that stay text, and nothing that differs from one drawing to the next."""
    return mpl.rc_context({"svg.hashsalt": "wholetrack", "svg.fonttype": "none", "font.size": 8})


def save(figure: Figure, path: Path) -> None:
    """Write a picture without the date."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None, "Creator": None})
