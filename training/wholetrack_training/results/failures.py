"""The worst answers: recordings that a model got wrong with high confidence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_CONFIDENCE = 0.8
MAX_FAILURES = 20


@dataclass(frozen=True, slots=True)
class Failure:
    """A wrong answer.

    Attributes:
        name: Name of the recording.
        right: The right answer.
        answer: The answer of the model.
        confidence: Its confidence.
        next_best: The second genre.
        rank_of_right: Position of the right answer; 1 is the first. None if the model does not have that genre.
        tags: The most probable tags, best first; none if the model has no tags.
    """

    name: str
    right: str
    answer: str
    confidence: float
    next_best: str
    rank_of_right: int | None
    tags: tuple[str, ...] = ()


def failures(
    names: Sequence[str],
    right: Sequence[str | None],
    shares: NDArray[np.float64],
    confidences: NDArray[np.float64],
    labels: Sequence[str],
    *,
    tags: Sequence[Sequence[str]],
) -> list[Failure]:
    """Return the wrong answers with a confidence above 0.8.

    Args:
        names: Name of each recording.
        right: The right answer for each recording; None if it has none.
        shares: Share of each label, ``[n_recordings, n_labels]``.
        confidences: Confidence of each answer, ``[n_recordings]``.
        labels: Names of the labels.
        tags: The most probable tags of each recording.
    """
    found = []
    for name, genre, row, confidence, of_track in zip(names, right, shares, confidences, tags, strict=True):
        order = [labels[i] for i in np.argsort(-row, kind="stable")]
        if genre is None or order[0] == genre or confidence <= MIN_CONFIDENCE:
            continue
        rank = order.index(genre) + 1 if genre in order else None
        found.append(Failure(name, genre, order[0], round(float(confidence), 3), order[1], rank, tuple(of_track)))
    return found


def worst(found: Iterable[Failure]) -> list[Failure]:
    """Return the failures with the highest confidence, at most twenty."""
    return sorted(found, key=lambda failure: (-failure.confidence, failure.name))[:MAX_FAILURES]
