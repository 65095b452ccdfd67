"""A temperature makes the confidence of tracks never seen mean what it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

from tests.wholetrack_training.test_report import made_up
from wholetrack.aggregation.confidence import tempered
from wholetrack_training.data.splits import Protocol
from wholetrack_training.results.calibration import calibrate, find_domain, fit_temperature
from wholetrack_training.results.records import Record

pytestmark = pytest.mark.torch


def honest(rng: np.random.Generator, n_tracks: int = 3000) -> tuple[NDArray[np.float64], NDArray[np.int_]]:
    """Distributions that are right as often as they say."""
    shares = rng.dirichlet([0.3] * 5, n_tracks)
    truth = np.array([rng.choice(5, p=row) for row in shares])
    return shares, truth


@pytest.mark.parametrize("distortion", [0.4, 1.0, 3.0])
def test_the_temperature_undoes_what_was_done(rng: np.random.Generator, distortion: float) -> None:
    shares, truth = honest(rng)
    assert fit_temperature(tempered(shares, distortion), truth) == pytest.approx(1 / distortion, rel=0.1)


def test_calibration_is_judged_on_tracks_that_it_was_not_fitted_to(rng: np.random.Generator) -> None:
    def fold(part: int, temperature: float) -> Record:
        shares, truth = honest(rng, 1000)
        figures = {"shares": tempered(shares, temperature).round(4).tolist(), "truth": truth.tolist()}
        record = made_up(part, Protocol.ARTIST_FILTERED)
        return replace(record, figures={**record.figures, **figures})

    found = calibrate([fold(1, 2.5), fold(2, 2.5), fold(3, 2.5)])
    assert found.temperature == pytest.approx(0.4, rel=0.1)
    assert found.ece_before > 0.15
    assert found.ece_after < 0.05
    # Where one fold is of another kind, the temperature of the others does not suit it, and the figure says so.
    assert calibrate([fold(1, 2.5), fold(2, 2.5), fold(3, 0.4)]).ece_after > 0.05


def test_where_music_ends_is_chosen_on_tracks_never_heard(rng: np.random.Generator) -> None:
    def fold(part: int, lowest: float) -> Record:
        record = made_up(part, Protocol.ARTIST_FILTERED)
        return replace(record, figures={**record.figures, "peaks": rng.uniform(lowest, 0.9, 1000).tolist()})

    found = find_domain([fold(1, 0.4), fold(2, 0.4), fold(3, 0.4)])
    assert found.least_peak == pytest.approx(0.405, abs=0.003)
    assert found.outside == pytest.approx(0.01, abs=0.006)
    # A fold of music about which the network is less decided than about all other shows in the figure.
    assert find_domain([fold(1, 0.4), fold(2, 0.4), fold(3, 0.3)]).outside == pytest.approx((0.17 + 0.02) / 3, abs=0.02)
