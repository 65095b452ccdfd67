"""Means and standard deviations over the runs of a recipe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from wholetrack_training.data.splits import Protocol
from wholetrack_training.results.records import Record

METRICS = {Protocol.RANDOM: "random_split", Protocol.ARTIST_FILTERED: "artist_filtered"}
"""The name of each protocol's figures in ``model.json``."""

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
"""Figures of an evaluation that are averaged over runs."""


def summarise(records: Iterable[Record]) -> dict[str, dict[str, Any]]:
    """Return mean and standard deviation over runs, by the names in :data:`METRICS`.

    Each entry has ``runs``, ``tracks`` (test tracks over all runs), every figure of :data:`AVERAGED` and, if there are
    several runs, its sample standard deviation as ``<figure>_sd``; all to four decimals.
    """
    by_protocol: dict[Protocol, list[Record]] = {}
    for record in records:
        if record.protocol in METRICS:
            by_protocol.setdefault(record.protocol, []).append(record)
    return {METRICS[protocol]: _summary(group) for protocol, group in sorted(by_protocol.items())}


def _summary(records: Sequence[Record]) -> dict[str, Any]:
    entry: dict[str, Any] = {"runs": len(records), "tracks": sum(record.figures.n_tracks for record in records)}
    for name in AVERAGED:
        values = np.array([getattr(record.figures, name) for record in records])
        entry[name] = round(float(values.mean()), 4)
        if len(values) > 1:
            entry[f"{name}_sd"] = round(float(values.std(ddof=1)), 4)
    return entry
