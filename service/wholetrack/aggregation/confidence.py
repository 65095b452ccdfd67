"""Confidence of a prediction, calibrated on tracks that were not used for training, and whether it is in domain."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import CalibrationSpec, DomainSpec, Ranking, WindowScores


def confidence(ranking: Ranking, calibration: CalibrationSpec | None) -> float:
    """Return the calibrated probability of the leading genre, or its share if the model has no calibration.

    Returns:
        A value in [0, 1]; 0.0 for a silent track.
    """
    if not ranking.ranked or calibration is None:
        return ranking.share
    shares = np.array([[entry.share for entry in ranking.ranked]])
    return float(tempered(shares, calibration.temperature)[0, 0])


def in_domain(
    scores: WindowScores, domain: DomainSpec | None, *, tags: Mapping[str, float] | None = None
) -> bool | None:
    """Return whether a recording resembles the music that the model was trained on. A silent track does not.

    Args:
        scores: Scores of the labels of the model, for all windows.
        domain: The criterion.
        tags: Calibrated probability of each tag for the track; None for a silent track or a model without tags.

    Returns:
        None if the model was not trained to recognise recordings that are out of domain.
    """
    if domain is None:
        return None
    probabilities = scores.probabilities[~scores.silent]
    if not len(probabilities):
        return False
    if domain.least_peak is not None:
        return mean_peak(probabilities) >= domain.least_peak
    assert tags
    assert domain.tag
    assert domain.least_probability
    return tags[domain.tag] >= domain.least_probability


def mean_peak(probabilities: NDArray[np.float32]) -> float:
    """Return the mean over windows of the largest probability (Hendrycks and Gimpel 2017).

    Args:
        probabilities: ``[n_windows, n_labels]``, at least one window.
    """
    return float(probabilities.max(axis=1).mean(dtype=np.float64))


def tempered(shares: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Apply temperature scaling (Guo et al. 2017): ``shares ** (1 / temperature)``, normalised so that rows sum to 1.

    Args:
        shares: ``[n, n_labels]``, rows sum to 1.
        temperature: Values below 1 sharpen the shares; values above 1 flatten them.
    """
    with np.errstate(divide="ignore"):
        logs = np.log(shares) / temperature
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
