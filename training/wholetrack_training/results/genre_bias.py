"""A bias for the genres beyond GTZAN, for which there are no labelled recordings to learn from.

A network that learned from recordings of ten genres only ranks the others too low. One number, added to the logits of
all of them, corrects that. It is chosen on recordings beyond GTZAN, so that figures of those are given with the bias
chosen on all recordings but the judged one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wholetrack_training.results.beyond import genre_ranks
from wholetrack_training.results.judging import ClassifiedSet
from wholetrack_training.systems.taxonomy import GTZAN

_CANDIDATES = np.arange(0.0, 4.01, 0.25)


@dataclass(frozen=True, slots=True)
class ChosenBias:
    """The bias, and what it does.

    Attributes:
        bias: Chosen on all recordings; 0 if the model has no genres beyond GTZAN.
        left_out: The bias for each recording, chosen on all others, ``[n_recordings]``.
    """

    bias: float
    left_out: NDArray[np.float64]


def biased(logs: NDArray[np.float32], labels: Sequence[str], bias: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the probabilities of windows with a bias for the genres beyond GTZAN, ``[n_windows, n_labels]``.

    Args:
        logs: Logarithms of the probabilities without it, ``[n_windows, n_labels]``.
        labels: Names of the labels.
        bias: The bias, one for all windows or one for each.
    """
    beyond = np.array([label not in GTZAN for label in labels], dtype=np.float64)
    logits = logs.astype(np.float64) + np.atleast_1d(np.asarray(bias, dtype=np.float64))[:, None] * beyond
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def shares_of(probabilities: NDArray[np.float64], found: ClassifiedSet) -> NDArray[np.float64]:
    """Return the share of each label in the summed score of each recording, ``[n_recordings, n_labels]``."""
    sums = np.zeros((len(found), probabilities.shape[1]))
    np.add.at(sums, found.owner, probabilities)
    return np.asarray(sums / np.maximum(found.n_windows, 1)[:, None])


def choose_bias(found: ClassifiedSet, labels: Sequence[str]) -> ChosenBias:
    """Choose the bias with most groups right, counting those that are first and those among the first three.

    Args:
        found: Outputs for the recordings beyond GTZAN.
        labels: Names of the labels.
    """
    if set(labels) <= set(GTZAN):
        return ChosenBias(0.0, np.zeros(len(found)))
    ranks = np.stack(
        [genre_ranks(found.groups, shares_of(biased(found.logs, labels, bias), found), labels) for bias in _CANDIDATES]
    )
    # Recordings without a genre have the rank -1.
    points = np.where(ranks >= 0, (ranks == 0).astype(int) + (ranks < 3), 0)
    totals = points.sum(axis=1)
    return ChosenBias(
        bias=float(_CANDIDATES[totals.argmax()]),
        left_out=_CANDIDATES[(totals[:, None] - points).argmax(axis=0)],
    )
