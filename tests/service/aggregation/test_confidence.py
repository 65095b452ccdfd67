"""Confidence is the calibrated chance of the leading genre, and the bare share where nobody calibrated."""

from __future__ import annotations

import numpy as np
import pytest

from service.aggregation.confidence import confidence, tempered
from service.contracts import CalibrationSpec, RankedGenre, Ranking

RANKING = Ranking((RankedGenre("a", 0.5), RankedGenre("b", 0.25), RankedGenre("c", 0.25), RankedGenre("d", 0.0)))


@pytest.mark.parametrize(
    ("temperature", "expected"),
    # 0.5 ** 2 / (0.5 ** 2 + 2 * 0.25 ** 2), the shares as they are, and their square roots.
    [(0.5, 2 / 3), (1.0, 0.5), (2.0, 0.5**0.5 / (0.5**0.5 + 2 * 0.25**0.5))],
)
def test_shares_to_the_power_of_one_over_the_temperature(temperature: float, expected: float) -> None:
    assert confidence(RANKING, CalibrationSpec(temperature=temperature)) == pytest.approx(expected)


def test_without_calibration_and_without_sound() -> None:
    assert confidence(RANKING, None) == 0.5
    assert confidence(Ranking(()), CalibrationSpec(temperature=0.5)) == 0.0


def test_certainty_stays_certainty_at_any_temperature() -> None:
    for temperature in (0.1, 10.0):
        assert tempered(np.array([[0.0, 1.0, 0.0]]), temperature).tolist() == [[0.0, 1.0, 0.0]]
