"""The verdicts, sections and windows of a prediction as rows, which all formats of tables share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from wholetrack.api.schemas import PredictionResponse

PROBABILITY_PREFIX = "p_"
"""What the columns with probabilities begin with; the rest is the label."""

_COLUMNS = ("kind", "start_s", "end_s", "genre", "share", "silent")


def rows(content: PredictionResponse) -> Iterator[dict[str, Any]]:
    """Yield the verdicts, sections and windows of a prediction, all windows with their probabilities.

    Each has the fields ``kind`` (``summed_score``, ``majority_vote``, ``section`` or ``window``), ``start_s`` and
    ``end_s`` in seconds, ``genre`` (None if silent), and ``share`` in [0, 1]: of the summed score or of the votes, or
    the mean probability in a section, or the probability in a window. Windows also have ``silent``, and for each label
    its probability.
    """
    labels, windows = content.model.labels, content.windows
    for kind, ranking in (
        ("summed_score", content.prediction.summed_score),
        ("majority_vote", content.prediction.majority_vote),
    ):
        yield {
            "kind": kind,
            "start_s": 0.0,
            "end_s": content.track.duration_s,
            "genre": ranking.genre,
            "share": ranking.share,
        }
    for section in content.sections:
        yield {"kind": "section"} | section.model_dump(include={"start_s", "end_s", "genre", "share"})
    length_s = content.model.step_s or content.model.window_s
    silent = set(windows.silent)
    for i, (start_s, genre, probabilities) in enumerate(
        zip(windows.start_s, windows.genre, windows.probabilities, strict=True)
    ):
        yield {
            "kind": "window",
            "start_s": start_s,
            "end_s": round(start_s + length_s, 6),
            "genre": genre,
            "share": max(probabilities),
            "silent": i in silent,
        } | {PROBABILITY_PREFIX + label: p for label, p in zip(labels, probabilities, strict=True)}


def columns(labels: Sequence[str]) -> list[str]:
    """Return the names of the columns of :func:`cells`."""
    return [*_COLUMNS, *(PROBABILITY_PREFIX + label for label in labels)]


def cells(content: PredictionResponse) -> Iterator[list[object]]:
    """Yield the cells of each row of a prediction; those that do not apply to it are empty."""
    names = columns(content.model.labels)
    for row in rows(content):
        yield [_cell(row.get(name)) for name in names]


def _cell(value: object) -> object:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else value
