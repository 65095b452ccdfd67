"""The two rankings of a whole track: by summed score and by majority vote.

Sums are in float64. A tie in votes is resolved by the summed score, a tie in scores by label order. Silent windows
count for neither.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import RankedGenre, Ranking, WindowScores

_SILENT = Ranking(())


def summed_score(scores: WindowScores, labels: Sequence[str]) -> Ranking:
    """Rank genres by the sum of their probabilities over all windows (Hilsdorf 2022; Dong 2018).

    Returns:
        All labels with their shares, which sum to 1; an empty ranking if every window is silent.
    """
    totals = _totals(scores)
    if not totals.any():
        return _SILENT
    shares = totals / totals.sum()
    order = np.argsort(-totals, kind="stable")
    return Ranking(tuple(RankedGenre(labels[i], float(shares[i])) for i in order))


def majority_vote(scores: WindowScores, labels: Sequence[str]) -> Ranking:
    """Rank genres by the number of windows in which they have the largest probability (Campana et al.).

    Returns:
        All labels with their share of the votes and their number of votes; an empty ranking if every window is silent.
    """
    probabilities = scores.probabilities[~scores.silent]
    if not len(probabilities):
        return _SILENT
    votes = np.bincount(probabilities.argmax(axis=1), minlength=len(labels))
    order = np.lexsort((np.arange(len(labels)), -_totals(scores), -votes))
    return Ranking(tuple(RankedGenre(labels[i], float(votes[i] / len(probabilities)), int(votes[i])) for i in order))


def _totals(scores: WindowScores) -> NDArray[np.float64]:
    return np.asarray(scores.probabilities[~scores.silent].sum(axis=0, dtype=np.float64))
