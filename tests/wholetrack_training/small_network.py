"""A recipe with a small network that learns the toy tracks in seconds, and records of its runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from wholetrack_training.data.splits import Protocol, random_split
from wholetrack_training.data.tracks import TrackSet
from wholetrack_training.fitting.evaluation import Evaluation
from wholetrack_training.fitting.runs import Run, RunSpec
from wholetrack_training.results.records import Record, Training
from wholetrack_training.results.summary import AVERAGED
from wholetrack_training.systems.recipe import Source
from wholetrack_training.systems.wholetrack_crnn import WholetrackCrnn

FULL = WholetrackCrnn.of(Source.PRECOMPUTED)
SMALL_SHAPE = {"shape.channels": (4, 8, 8, 16, 16), "shape.hidden": 8}
SMALL = FULL.changed(
    {
        **SMALL_SHAPE,
        "windows_per_track": 4,
        "schedule.epochs": 6,
        "schedule.batch": 16,
        "schedule.learning_rate": 1e-2,
        "schedule.averaging": 0.8,
        # Options that make toys harder to classify, or that prevent early stopping, have tests of their own.
        "schedule.keep": "best",
        "shape.centred": False,
        "augmentation.style": 0.0,
        "augmentation.degradation": 0.0,
        "outliers": 0,
    }
)


def toy_spec(tracks: TrackSet, seed: int = 0) -> RunSpec:
    """Return the specification of a run on a random split of the toys, a quarter of them for the test."""
    return RunSpec("toys", Protocol.RANDOM, 1, seed, tracks.labels, random_split(tracks, seed=1, test=0.25))


def record_of(run: Run) -> Record:
    """Return the record of a run without the export that would count the operations of its network."""
    return Record.of(run, mflop_per_window=1.0)


def made_up_record(part: int, protocol: Protocol = Protocol.RANDOM, accuracy: float = 0.5, **figures: Any) -> Record:
    """Return a record with two genres and invented figures."""
    evaluation = Evaluation(
        n_tracks=98,
        n_windows=980,
        window_loss=0.5,
        confusion=((3, 1), (2, 4)),
        truth=(0, 1),
        shares=((0.75, 0.25), (0.4, 0.6)),
        peaks=(0.8, 0.7),
        **{**dict.fromkeys(AVERAGED, 0.25), "track_accuracy_summed": accuracy},
    )
    history = {"train_loss": (1.0, 0.9), "validation_loss": (2.0, 1.8), "validation_track_accuracy": (0.5, 0.6)}
    return Record(
        date="2026-01-01",
        data="made-up.npz",
        protocol=protocol,
        part=part,
        seed=0,
        labels=("a", "b"),
        tracks={"train": 1, "validation": 1, "test": 1},
        system="wholetrack-crnn",
        recipe=FULL.as_dict(),
        parameters=12_345,
        mflop_per_window=6.7,
        figures=replace(evaluation, **figures),
        training=Training(epochs=2, best_epoch=1, minutes=3.0, history=history),
    )
