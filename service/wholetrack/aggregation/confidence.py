"""How sure an answer about a track is: what share of such answers turned out right on tracks the network never saw."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import CalibrationSpec, DomainSpec, Ranking, WindowScores


def confidence(ranking: Ranking, calibration: CalibrationSpec | None) -> float:
    """The calibrated probability of the leading genre; its bare share where the model was never calibrated.

    Returns:
        In [0, 1]; 0.0 where nothing was heard.
    """
    if not ranking.ranked or calibration is None:
        return ranking.share
    shares = np.array([[entry.share for entry in ranking.ranked]])
    return float(tempered(shares, calibration.temperature)[0, 0])


def in_domain(scores: WindowScores, domain: DomainSpec | None) -> bool | None:
    """Whether a recording is of a kind that the model knows; silence is not.

    Returns:
        None where the model was never taught what it does not know.
    """
    if domain is None:
        return None
    heard = scores.probabilities[~scores.silent]
    return bool(len(heard)) and mean_peak(heard) >= domain.least_peak


def mean_peak(probabilities: NDArray[np.float32]) -> float:
    """How decided a network is: the highest probability of a window (Hendrycks and Gimpel 2017), mean over windows.

    Args:
        probabilities: ``[n_windows, n_labels]``, at least one window.
    """
    return float(probabilities.max(axis=1).mean(dtype=np.float64))


def tempered(shares: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Temperature scaling (Guo et al. 2017) of distributions: ``shares ** (1 / temperature)``, made to add up to 1.

    Args:
        shares: ``[n, n_labels]``, each row adding up to 1.
        temperature: below 1 sharpens, above 1 flattens.
    """
    with np.errstate(divide="ignore"):
        logs = np.log(shares) / temperature
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
