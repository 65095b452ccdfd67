"""Calibration on held-out tracks: a temperature for the confidence, and a threshold for music that is in domain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from wholetrack.aggregation.confidence import tempered
from wholetrack_training.fitting.evaluation import expected_calibration_error
from wholetrack_training.results.records import Record

_MIN_TEMPERATURE, _MAX_TEMPERATURE = 0.1, 10.0
_MIN_SHARE = 1e-6
_REJECTED_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Calibration:
    """A temperature and its effect.

    Attributes:
        temperature: Fitted to the tracks of all records.
        ece_before: Expected calibration error of the leading shares without a temperature, over all tracks.
        ece_after: The same with the tracks of each record at the temperature fitted to the other records, which
            estimates the error on new tracks.
    """

    temperature: float
    ece_before: float
    ece_after: float


def calibrate(records: Sequence[Record]) -> Calibration:
    """Fit a temperature to the test tracks of several runs.

    Args:
        records: At least two records with disjoint test tracks, such as the artist-filtered folds.
    """
    shares = [_shares(record) for record in records]
    truths = [np.array(record.figures.truth) for record in records]
    after = []
    for held_out in range(len(records)):
        rest = [i for i in range(len(records)) if i != held_out]
        fitted = fit_temperature(np.concatenate([shares[i] for i in rest]), np.concatenate([truths[i] for i in rest]))
        after.append(tempered(shares[held_out], fitted))
    everything, truth = np.concatenate(shares), np.concatenate(truths)
    return Calibration(
        temperature=round(fit_temperature(everything, truth), 4),
        ece_before=round(_ece(everything, truth), 4),
        ece_after=round(_ece(np.concatenate(after), truth), 4),
    )


@dataclass(frozen=True, slots=True)
class Domain:
    """The threshold between music that is in domain and everything else.

    Attributes:
        least_peak: The mean highest probability of the windows that 99 % of the held-out tracks reach.
        outside: Share of the tracks that are rejected, with the tracks of each record tested against the threshold
            chosen on the others.
    """

    least_peak: float
    outside: float


def find_domain(records: Sequence[Record]) -> Domain:
    """Choose the threshold on the test tracks of several runs; no sounds other than music are used for it.

    Args:
        records: At least two records with disjoint test tracks, such as the artist-filtered folds.
    """
    peaks = [np.array(record.figures.peaks) for record in records]
    outside = []
    for held_out, own in enumerate(peaks):
        rest = np.concatenate([other for i, other in enumerate(peaks) if i != held_out])
        outside.append(own < np.quantile(rest, _REJECTED_SHARE))
    return Domain(
        least_peak=round(float(np.quantile(np.concatenate(peaks), _REJECTED_SHARE)), 4),
        outside=round(float(np.concatenate(outside).mean()), 4),
    )


def fit_temperature(shares: NDArray[np.float64], truth: NDArray[np.int_]) -> float:
    """Return the temperature that maximises the likelihood of the true genres.

    Args:
        shares: Share of each genre, ``[n_tracks, n_labels]``.
        truth: True genre, ``[n_tracks]``.
    """

    def loss(log_temperature: float) -> float:
        of_truth = tempered(shares, float(np.exp(log_temperature)))[np.arange(len(truth)), truth]
        return float(-np.log(np.maximum(of_truth, _MIN_SHARE)).mean())

    bounds = (np.log(_MIN_TEMPERATURE), np.log(_MAX_TEMPERATURE))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def _shares(record: Record) -> NDArray[np.float64]:
    # Records have four decimals. Without a minimum no temperature could raise a share that was rounded to zero.
    shares = np.maximum(np.array(record.figures.shares, dtype=np.float64), _MIN_SHARE)
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def _ece(shares: NDArray[np.float64], truth: NDArray[np.int_]) -> float:
    return expected_calibration_error(shares.max(axis=1), shares.argmax(axis=1) == truth)
