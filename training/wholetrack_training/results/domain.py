"""Whether a recording belongs to a genre that the model knows: a logistic regression on four values of each window.

What is unknown is imitated by leaving one genre out of the taxonomy: without the output for its own genre, a recording
must not count as known. Noise, tones and speech must not either. The regression is fitted on artist-filtered folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from wholetrack_training.export.two_towers import FLATTEST, KNOWN_GENRE, KnownGenre
from wholetrack_training.results.audio_sets import CLIPS, NO_MUSIC, WINDOWS
from wholetrack_training.results.judged_files import Judged
from wholetrack_training.results.judging import ClassifiedSet
from wholetrack_training.systems.tag_kinds import KINDS

DOMAIN_TAGS = (KNOWN_GENRE, "Music", *(tag for tag, kind in KINDS.items() if kind == "not_music"))
"""The tags whose logits the regression needs for each window."""

_FOLDS = (1, 2, 3)
_KEPT = 0.9
NOTHING_LEFT_OUT = -1


@dataclass(frozen=True, slots=True)
class DomainExample:
    """Windows of one set, all known or all unknown.

    Attributes:
        values: ``[n_windows, 4]``.
        weights: One over the number of windows of the recording, ``[n_windows]``.
        owner: Index of the recording of each window.
        folds: Fold of each recording; the sounds that are no music are divided among the folds.
        known: Whether they count as known.
    """

    values: NDArray[np.float64]
    weights: NDArray[np.float64]
    owner: NDArray[np.int_]
    folds: NDArray[np.int_]
    known: bool


def domain_values(
    found: ClassifiedSet, judged: Judged, *, left_out: NDArray[np.int_] | None = None
) -> NDArray[np.float64]:
    """Return energy, logarithm of the largest probability, and logits of no music and music, ``[n_windows, 4]``.

    Args:
        found: Outputs for a set.
        judged: The record that it belongs to.
        left_out: For each recording the label that is left out of the taxonomy, or -1.
    """
    column = {tag: found.window_tags[:, i].astype(np.float64) for i, tag in enumerate(judged.window_tags)}
    logits = found.logs.astype(np.float64) + column[KNOWN_GENRE][:, None]
    if left_out is not None:
        of_window = left_out[found.owner]
        rows = np.flatnonzero(of_window != NOTHING_LEFT_OUT)
        logits[rows, of_window[rows]] = -np.inf
    largest = logits.max(axis=1)
    energy = largest + np.log(np.exp(logits - largest[:, None]).sum(axis=1))
    not_music = np.max([values for tag, values in column.items() if KINDS.get(tag) == "not_music"], axis=0)
    return np.stack((energy, largest - energy, not_music, column["Music"]), axis=1)


def known_probability(
    found: ClassifiedSet, judged: Judged, fit: KnownGenre, *, left_out: NDArray[np.int_] | None = None
) -> NDArray[np.float64]:
    """Return the probability that each recording is known: the mean over its windows, ``[n_recordings]``."""
    values = domain_values(found, judged, left_out=left_out)
    return _mean(_probabilities(values, fit), found)


def flattened(judged: Judged) -> Judged:
    """Return the record with the probabilities of the published network, which are flatter where no genre is known.

    How well a genre is known comes from a regression that was fitted to other folds. The biases are not included.
    """
    fit, by_fold = fit_domain(judged), fits_by_fold(judged)
    sets = {}
    for name, found in judged.sets.items():
        values = domain_values(found, judged)
        known = _probabilities(values, fit)
        if name in (WINDOWS, CLIPS, NO_MUSIC):
            folds = domain_fold(found)[found.owner]
            known = np.select(
                [folds == fold for fold in by_fold], [_probabilities(values, each) for each in by_fold.values()]
            )
        logits = (FLATTEST + (1.0 - FLATTEST) * known)[:, None] * found.logs
        logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        sets[name] = replace(found, logs=logs.astype(np.float32))
    return replace(judged, sets=sets)


def fit_domain(judged: Judged, *, folds: Sequence[int] = _FOLDS) -> KnownGenre:
    """Fit the regression to the recordings of some folds, and to a part of the sounds that are no music."""
    values, truth, weights = [], [], []
    for example in _examples(judged):
        chosen = np.isin(example.folds, folds)[example.owner]
        values.append(example.values[chosen])
        truth.append(np.full(int(chosen.sum()), example.known))
        weights.append(example.weights[chosen])
    regression = LogisticRegression(C=1.0, max_iter=1000)
    regression.fit(np.concatenate(values), np.concatenate(truth), sample_weight=np.concatenate(weights))
    rounded = [round(float(value), 4) for value in (*regression.coef_[0], regression.intercept_[0])]
    return KnownGenre(*rounded)


def fits_by_fold(judged: Judged) -> dict[int, KnownGenre]:
    """Return for each fold the regression that was fitted to the others."""
    return {fold: fit_domain(judged, folds=[other for other in _FOLDS if other != fold]) for fold in _FOLDS}


def own_labels(found: ClassifiedSet, labels: Sequence[str]) -> NDArray[np.int_]:
    """Return the label of each recording of GTZAN, ``[n_recordings]``."""
    return np.array([labels.index(group) for group in found.groups])


def domain_fold(found: ClassifiedSet) -> NDArray[np.int_]:
    """Return the fold of each recording; recordings without one are divided among the folds in turn."""
    return np.where(found.folds > 0, found.folds, np.arange(len(found)) % len(_FOLDS) + 1)


def choose_threshold(of_known: NDArray[np.float64]) -> float:
    """Return the probability that 90 % of the known recordings reach."""
    return round(float(np.quantile(of_known, 1 - _KEPT)), 4)


def _examples(judged: Judged) -> list[DomainExample]:
    examples = []
    for name in (WINDOWS, CLIPS):
        found = judged.sets[name]
        for known in (True, False):
            left_out = None if known else own_labels(found, judged.labels)
            examples.append(_example(found, domain_values(found, judged, left_out=left_out), known=known))
    found = judged.sets[NO_MUSIC]
    examples.append(_example(found, domain_values(found, judged), known=False))
    return examples


def _example(found: ClassifiedSet, values: NDArray[np.float64], *, known: bool) -> DomainExample:
    weights = 1.0 / found.n_windows[found.owner]
    return DomainExample(values, weights, found.owner, domain_fold(found), known)


def _probabilities(values: NDArray[np.float64], fit: KnownGenre) -> NDArray[np.float64]:
    logits = values @ np.array([fit.energy, fit.peak, fit.not_music, fit.music]) + fit.constant
    return np.asarray(1.0 / (1.0 + np.exp(-logits)))


def _mean(probabilities: NDArray[np.float64], found: ClassifiedSet) -> NDArray[np.float64]:
    sums = np.bincount(found.owner, weights=probabilities, minlength=len(found))
    return np.asarray(sums / np.maximum(found.n_windows, 1))
