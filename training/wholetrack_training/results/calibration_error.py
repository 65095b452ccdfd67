"""How far confidences are from the share that is right, and how far they would be by chance alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 5
_SIMULATIONS = 4000
_SEED = 20_261_127


@dataclass(frozen=True, slots=True)
class CalibrationError:
    """An expected calibration error.

    Attributes:
        error: Mean gap between confidence and accuracy over bins with equally many recordings.
        n: Number of recordings.
        by_chance: Range that contains 95 % of the errors of a model whose confidences are exact, for these confidences.
    """

    error: float
    n: int
    by_chance: tuple[float, float]


def calibration_error(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> CalibrationError:
    """Return the expected calibration error over five bins with equally many recordings.

    Args:
        confidence: Confidence of each recording, ``[n]``.
        correct: Whether each recording is right, ``[n]``.
    """
    rng = np.random.default_rng(_SEED)
    simulated = [equal_mass_error(confidence, rng.random(len(confidence)) < confidence) for _ in range(_SIMULATIONS)]
    low, high = np.quantile(simulated, (0.025, 0.975))
    return CalibrationError(equal_mass_error(confidence, correct), len(confidence), (float(low), float(high)))


def equal_mass_error(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> float:
    """Return the mean gap between confidence and accuracy over five bins with equally many recordings.

    The sizes of the bins differ by one at most; each counts by its size.
    """
    order = np.argsort(confidence, kind="stable")
    gaps = [
        len(rows) * abs(float(confidence[rows].mean()) - float(correct[rows].mean()))
        for rows in np.array_split(order, BINS)
        if len(rows)
    ]
    return sum(gaps) / len(confidence)
