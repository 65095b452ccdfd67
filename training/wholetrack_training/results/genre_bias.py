"""A bias for each genre, which is added to its logits, fitted to labelled recordings of GTZAN and beyond it.

Some genres were learned from labels and some from the tags of other networks, so that their logits have no common
scale. The biases minimise the negative logarithm of the share of the right genre. The recordings of GTZAN and those
beyond it count the same, and so does each genre in each of the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from wholetrack_training.results.audio_sets import BEYOND, CLIPS, WINDOWS
from wholetrack_training.results.beyond import GROUPS
from wholetrack_training.results.judged_files import Judged
from wholetrack_training.results.judging import ClassifiedSet
from wholetrack_training.systems.taxonomy import GTZAN

# Added to the loss for each squared bias. Chosen among 0.003, 0.005 and 0.01, which differ by one to three recordings.
_PENALTY = 0.005
_MIN_SHARE = 1e-9


@dataclass(frozen=True, slots=True)
class GenreBias:
    """The biases, and those for recordings that they were fitted to.

    Attributes:
        published: Fitted to all recordings, ``[n_labels]``.
        by_fold: For each fold of GTZAN, fitted to all recordings but those of the fold.
        left_out: For each recording beyond GTZAN, fitted to all others, ``[n_recordings, n_labels]``.
    """

    published: NDArray[np.float64]
    by_fold: Mapping[int, NDArray[np.float64]]
    left_out: NDArray[np.float64]

    def by_genre(self, labels: Sequence[str]) -> dict[str, float]:
        """Return the published bias of each genre; empty if all are zero."""
        return dict(zip(labels, self.published.tolist(), strict=True)) if self.published.any() else {}

    def of_windows(self, judged: Judged, name: str) -> NDArray[np.float64]:
        """Return the bias for each window of a set, fitted without the recording, ``[n_windows, n_labels]``.

        Args:
            judged: The record that the biases were fitted to.
            name: Name of the set.
        """
        found = judged.sets[name]
        if name == BEYOND:
            return self.left_out[found.owner]
        return np.stack([self.by_fold.get(int(fold), self.published) for fold in found.folds])[found.owner]


def biased(logs: NDArray[np.floating], bias: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the probabilities of windows with a bias for each genre, ``[n_windows, n_labels]``.

    Args:
        logs: Logarithms of the probabilities without it, ``[n_windows, n_labels]``.
        bias: The bias, ``[n_labels]`` for all windows or ``[n_windows, n_labels]``.
    """
    logits = logs.astype(np.float64) + bias
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def shares_of(probabilities: NDArray[np.float64], found: ClassifiedSet) -> NDArray[np.float64]:
    """Return the share of each label in the summed score of each recording, ``[n_recordings, n_labels]``."""
    sums = np.zeros((len(found), probabilities.shape[1]))
    np.add.at(sums, found.owner, probabilities)
    return np.asarray(sums / np.maximum(found.n_windows, 1)[:, None])


def fit_bias(judged: Judged) -> GenreBias:
    """Fit the biases to the excerpts and clips of GTZAN and to the recordings beyond it.

    A model whose genres are GTZAN's was taught all of them by labels, and gets no bias.
    """
    beyond, n_labels = judged.sets[BEYOND], len(judged.labels)
    folds = sorted({int(fold) for name in (WINDOWS, CLIPS) for fold in judged.sets[name].folds})
    if set(judged.labels) <= set(GTZAN):
        none = np.zeros(n_labels)
        return GenreBias(none, dict.fromkeys(folds, none), np.zeros((len(beyond), n_labels)))
    examples = _Examples.of(judged)
    published = examples.fit(np.ones(len(examples.truth), dtype=np.bool_), start=np.zeros(n_labels))
    left_out = np.tile(published, (len(beyond), 1))
    for position in np.flatnonzero(examples.folds == 0):
        chosen = np.arange(len(examples.truth)) != position
        left_out[examples.rows[position]] = examples.fit(chosen, start=published)
    by_fold = {fold: examples.fit(examples.folds != fold, start=published) for fold in folds}
    return GenreBias(published.round(2), by_fold, left_out)


@dataclass(frozen=True, slots=True)
class _Examples:
    """Recordings whose genre is among the labels; those of fold 0 are beyond GTZAN.

    Attributes:
        logs: Logarithms of the probabilities of all windows, ``[n_windows, n_labels]``.
        owner: Index of the recording of each window.
        truth: Label of each recording.
        folds: Fold of each recording.
        rows: Index of each recording in its set.
    """

    logs: NDArray[np.float64]
    owner: NDArray[np.int_]
    truth: NDArray[np.int_]
    folds: NDArray[np.int_]
    rows: NDArray[np.int_]

    @classmethod
    def of(cls, judged: Judged) -> _Examples:
        logs, counts, truth, folds, rows = [], [], [], [], []
        for name in (BEYOND, WINDOWS, CLIPS):
            found = judged.sets[name]
            genres = [GROUPS.get(group) if name == BEYOND else group for group in found.groups]
            used = np.array([genre in judged.labels for genre in genres]) & (found.n_windows > 0)
            logs.append(found.logs[used[found.owner]].astype(np.float64))
            counts.append(found.n_windows[used])
            truth += [judged.labels.index(str(genres[i])) for i in np.flatnonzero(used)]
            folds.append(found.folds[used])
            rows.append(np.flatnonzero(used))
        n_windows = np.concatenate(counts)
        owner = np.repeat(np.arange(len(n_windows)), n_windows)
        return cls(np.concatenate(logs), owner, np.array(truth), np.concatenate(folds), np.concatenate(rows))

    def fit(self, chosen: NDArray[np.bool_], *, start: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the biases fitted to the chosen recordings, ``[n_labels]``."""
        weights = self._weights(chosen)

        def loss(bias: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            return self._loss(bias, weights)

        return np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B").x)

    def _weights(self, chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
        cells = np.unique(np.stack((self.folds == 0, self.truth)), axis=1, return_inverse=True)[1].ravel()
        counts = np.bincount(cells, weights=chosen)
        weights = np.where(chosen, 1.0 / np.maximum(counts[cells], 1.0), 0.0)
        return np.asarray(weights / weights.sum())

    def _loss(self, bias: NDArray[np.float64], weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        probabilities = biased(self.logs, bias)
        windows = np.arange(len(self.owner))
        right = probabilities[windows, self.truth[self.owner]]
        n_windows = np.bincount(self.owner)
        shares = np.maximum(np.bincount(self.owner, weights=right) / n_windows, _MIN_SHARE)
        slopes = -right[:, None] * probabilities
        slopes[windows, self.truth[self.owner]] += right
        factors = weights / (n_windows * shares)
        gradient = 2 * _PENALTY * bias - factors[self.owner] @ slopes
        return float(_PENALTY * (bias**2).sum() - weights @ np.log(shares)), np.asarray(gradient)
