"""Calibration of the confidence, and the domain threshold, on tracks that they were not fitted to."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

from tests.wholetrack_training.small_network import made_up_record
from wholetrack.aggregation.confidence import tempered
from wholetrack_training.data.splits import Protocol
from wholetrack_training.results.calibration import calibrate, find_domain, fit_temperature
from wholetrack_training.results.records import Record

pytestmark = pytest.mark.torch


def calibrated(rng: np.random.Generator, n_tracks: int = 3000) -> tuple[NDArray[np.float64], NDArray[np.int_]]:
    """Return calibrated shares ``[n_tracks, 5]`` and the true genres: a share of 0.7 is correct for 70 % of them."""
    shares = rng.dirichlet([0.3] * 5, n_tracks)
    truth = np.array([rng.choice(5, p=row) for row in shares])
    return shares, truth


@pytest.mark.parametrize("distortion", [0.4, 1.0, 3.0])
def test_the_fitted_temperature_reverses_a_distortion(rng: np.random.Generator, distortion: float) -> None:
    shares, truth = calibrated(rng)
    assert fit_temperature(tempered(shares, distortion), truth) == pytest.approx(1 / distortion, rel=0.1)


def test_the_calibration_error_is_measured_on_folds_that_were_not_fitted(
    rng: np.random.Generator,
) -> None:
    def fold(part: int, temperature: float) -> Record:
        shares, truth = calibrated(rng, 1000)
        rounded = tuple(map(tuple, tempered(shares, temperature).round(4).tolist()))
        return made_up_record(part, Protocol.ARTIST_FILTERED, shares=rounded, truth=tuple(truth.tolist()))

    found = calibrate([fold(1, 2.5), fold(2, 2.5), fold(3, 2.5)])
    assert found.temperature == pytest.approx(0.4, rel=0.1)
    assert found.ece_before > 0.15
    assert found.ece_after < 0.05
    # If one fold differs, the temperature of the others does not fit it, which increases the error.
    assert calibrate([fold(1, 2.5), fold(2, 2.5), fold(3, 0.4)]).ece_after > 0.05


def test_the_domain_threshold_is_chosen_on_tracks_of_other_folds(rng: np.random.Generator) -> None:
    def fold(part: int, lowest: float) -> Record:
        peaks = tuple(rng.uniform(lowest, 0.9, 1000).tolist())
        return made_up_record(part, Protocol.ARTIST_FILTERED, peaks=peaks)

    found = find_domain([fold(1, 0.4), fold(2, 0.4), fold(3, 0.4)])
    assert found.least_peak == pytest.approx(0.405, abs=0.003)
    assert found.outside == pytest.approx(0.01, abs=0.006)
    # A fold of music that the network is less decided about increases the share of rejected tracks.
    assert find_domain([fold(1, 0.4), fold(2, 0.4), fold(3, 0.3)]).outside == pytest.approx((0.17 + 0.02) / 3, abs=0.02)
