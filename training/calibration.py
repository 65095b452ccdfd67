"""The temperature at which a track's leading share is the chance that it is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from service.aggregation.confidence import tempered
from training.evaluation import expected_calibration_error
from training.results import Record

_LOWEST, _HIGHEST = 0.1, 10.0
_SMALLEST = 1e-6


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
