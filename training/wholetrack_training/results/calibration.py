"""What held-out tracks say of a network: how sure its answers are, and how undecided it is about music at most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from wholetrack.aggregation.confidence import tempered
from wholetrack_training.fitting.evaluation import expected_calibration_error
from wholetrack_training.results.records import Record

_LOWEST, _HIGHEST = 0.1, 10.0
_SMALLEST = 1e-6
_REFUSED = 0.01


@dataclass(frozen=True, slots=True)
class Calibration:
    """A temperature and what it does.

    Attributes:
        temperature: fitted to the tracks of all records.
        ece_before: expected calibration error of the bare shares, over all tracks.
        ece_after: the same with each record's tracks at the temperature fitted to the others: what a temperature is
            worth on tracks that it was not chosen by.
    """

    temperature: float
    ece_before: float
    ece_after: float


def calibrate(records: Sequence[Record]) -> Calibration:
    """Fit a temperature to the test tracks of several runs.

    Args:
        records: at least two, of tracks that do not overlap: the artist-filtered folds.
    """
    shares = [_shares(record) for record in records]
    truths = [np.array(record.figures["truth"]) for record in records]
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
    """Where the music that a model knows ends.

    Attributes:
        least_peak: all but one in a hundred held-out tracks are at least so decided.
        outside: share of tracks taken for something else, each record's by the limit chosen on the others.
    """

    least_peak: float
    outside: float


def find_domain(records: Sequence[Record]) -> Domain:
    """Choose the limit on the test tracks of several runs; what is no music plays no part in it.

    Args:
        records: at least two, of tracks that do not overlap: the artist-filtered folds.
    """
    peaks = [np.array(record.figures["peaks"]) for record in records]
    outside = []
    for held_out, own in enumerate(peaks):
        rest = np.concatenate([other for i, other in enumerate(peaks) if i != held_out])
        outside.append(own < np.quantile(rest, _REFUSED))
    return Domain(
        least_peak=round(float(np.quantile(np.concatenate(peaks), _REFUSED)), 4),
        outside=round(float(np.concatenate(outside).mean()), 4),
    )


def fit_temperature(shares: NDArray[np.float64], truth: NDArray[np.int_]) -> float:
    """The temperature with the greatest likelihood of the true genres.

    Args:
        shares: ``[n_tracks, n_labels]``.
        truth: ``[n_tracks]``.
    """

    def loss(log_temperature: float) -> float:
        of_truth = tempered(shares, float(np.exp(log_temperature)))[np.arange(len(truth)), truth]
        return float(-np.log(np.maximum(of_truth, _SMALLEST)).mean())

    found = minimize_scalar(loss, bounds=(np.log(_LOWEST), np.log(_HIGHEST)), method="bounded")
    return float(np.exp(found.x))


def _shares(record: Record) -> NDArray[np.float64]:
    # Rounded for the record: without a floor a genre's share of zero could never come back.
    shares = np.maximum(np.array(record.figures["shares"], dtype=np.float64), _SMALLEST)
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def _ece(shares: NDArray[np.float64], truth: NDArray[np.int_]) -> float:
    return expected_calibration_error(shares.max(axis=1), shares.argmax(axis=1) == truth)
