"""The two answers about a whole track: summed score and majority vote.

Sums are in float64. A tie in votes goes to the larger summed score, a tie in scores to label order. Silent windows
carry neither score nor vote.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import RankedGenre, Ranking, WindowScores

_NOTHING_HEARD = Ranking(())


def summed_score(scores: WindowScores, labels: Sequence[str]) -> Ranking:
    """Rank genres by the sum of their probabilities over all windows (Hilsdorf 2022; Dong 2018).

    Returns:
        All labels with their share of the total, which adds up to 1; an empty ranking if every window is silent.
    """
    totals = _totals(scores)
    if not totals.any():
        return _NOTHING_HEARD
    shares = totals / totals.sum()
    order = np.argsort(-totals, kind="stable")
    return Ranking(tuple(RankedGenre(labels[i], float(shares[i])) for i in order))


def majority_vote(scores: WindowScores, labels: Sequence[str]) -> Ranking:
    """Rank genres by the number of windows in which they come first (Campana et al.).

    Returns:
        All labels with their share of the votes and their number; an empty ranking if every window is silent.
    """
    heard = scores.probabilities[~scores.silent]
    if not len(heard):
        return _NOTHING_HEARD
    votes = np.bincount(heard.argmax(axis=1), minlength=len(labels))
    order = np.lexsort((np.arange(len(labels)), -_totals(scores), -votes))
    return Ranking(tuple(RankedGenre(labels[i], float(votes[i] / len(heard)), int(votes[i])) for i in order))


def _totals(scores: WindowScores) -> NDArray[np.float64]:
    return np.asarray(scores.probabilities[~scores.silent].sum(axis=0, dtype=np.float64))
