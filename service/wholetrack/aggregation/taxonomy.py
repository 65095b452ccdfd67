"""Reading scores in another taxonomy, whose genres consist of labels of the model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wholetrack.aggregation.confidence import tempered
from wholetrack.contracts import CalibrationSpec, Ranking, TaxonomySpec, WindowScores


def folded(scores: WindowScores, labels: Sequence[str], taxonomy: TaxonomySpec) -> WindowScores:
    """Return the scores of the genres of a taxonomy.

    The probability of a genre is the sum of those of its labels. The row of a window is scaled so that it sums to 1,
    because labels may belong to no genre; if all of it belongs to those, and for a silent window, it is uniform.

    Args:
        scores: Scores of the labels of the model.
        labels: Label of each column.
        taxonomy: The genres.
    """
    sums = scores.probabilities @ _membership(labels, taxonomy).astype(np.float32)
    totals = sums.sum(axis=1, keepdims=True)
    uniform = np.float32(1.0 / len(taxonomy.genres))
    with np.errstate(invalid="ignore"):
        shares = np.where((totals > 0) & ~scores.silent[:, None], sums / totals, uniform)
    return WindowScores(scores.start_s, shares.astype(np.float32), scores.silent)


def folded_confidence(
    of_labels: Ranking,
    of_genres: Ranking,
    labels: Sequence[str],
    taxonomy: TaxonomySpec,
    calibration: CalibrationSpec | None,
) -> float:
    """Return the calibrated probability of the leading genre of a taxonomy: the sum over its labels.

    Args:
        of_labels: All labels by summed score.
        of_genres: All genres of the taxonomy by summed score.
        labels: The labels of the model.
        taxonomy: The genres.
        calibration: Calibration of the shares of the labels; without it, the confidence is the share of the genre.
    """
    if of_genres.genre is None or calibration is None:
        return of_genres.share
    share_of = {entry.genre: entry.share for entry in of_labels.ranked}
    shares = tempered(np.array([[share_of[label] for label in labels]]), calibration.temperature)
    sums = (shares @ _membership(labels, taxonomy))[0]
    # If no label of the taxonomy has a share, the leading genre comes from rows that are uniform.
    return float(sums[list(taxonomy.genres).index(of_genres.genre)] / sums.sum()) if sums.any() else of_genres.share


def _membership(labels: Sequence[str], taxonomy: TaxonomySpec) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return 1 where a label belongs to a genre, ``[n_labels, n_genres]``."""
    members = [[float(label in own) for own in taxonomy.genres.values()] for label in labels]
    return np.array(members, dtype=np.float64).reshape(len(labels), len(taxonomy.genres))
