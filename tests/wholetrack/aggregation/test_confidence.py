"""Confidence: the calibrated probability of the leading genre, or its share without a calibration."""

from __future__ import annotations

import numpy as np
import pytest

from wholetrack.aggregation.confidence import confidence, in_domain, tempered
from wholetrack.contracts import CalibrationSpec, DomainSpec, RankedGenre, Ranking, WindowScores

RANKING = Ranking((RankedGenre("a", 0.5), RankedGenre("b", 0.25), RankedGenre("c", 0.25), RankedGenre("d", 0.0)))


@pytest.mark.parametrize(
    ("temperature", "expected"),
    # 0.5 ** 2 / (0.5 ** 2 + 2 * 0.25 ** 2), the unchanged shares, and their square roots.
    [(0.5, 2 / 3), (1.0, 0.5), (2.0, 0.5**0.5 / (0.5**0.5 + 2 * 0.25**0.5))],
)
def test_shares_are_raised_to_one_over_the_temperature(temperature: float, expected: float) -> None:
    assert confidence(RANKING, CalibrationSpec(temperature=temperature)) == pytest.approx(expected)


def test_without_calibration_and_for_a_silent_track() -> None:
    assert confidence(RANKING, None) == 0.5
    assert confidence(Ranking(()), CalibrationSpec(temperature=0.5)) == 0.0


def test_a_share_of_one_stays_one_at_any_temperature() -> None:
    for temperature in (0.1, 10.0):
        assert tempered(np.array([[0.0, 1.0, 0.0]]), temperature).tolist() == [[0.0, 1.0, 0.0]]


def test_a_track_is_in_domain_if_the_mean_peak_is_high() -> None:
    def scores(peaks: list[float], silent: list[bool]) -> WindowScores:
        rows = np.array([[peak, 1 - peak] for peak in peaks], dtype=np.float32)
        return WindowScores(np.arange(len(peaks), dtype=np.float64), rows, np.array(silent))

    limit = DomainSpec(least_peak=0.7)
    # Some windows are clearly one genre and the others clearly another: two genres, but music.
    assert in_domain(scores([0.9, 0.1, 0.9, 0.1], [False] * 4), limit) is True
    assert in_domain(scores([0.6, 0.75], [False, False]), limit) is False
    assert in_domain(scores([0.6, 0.75], [True, False]), limit) is True
    assert in_domain(scores([0.9, 0.9], [True, True]), limit) is False
    assert in_domain(scores([0.9], [False]), None) is None
    by_tag = DomainSpec(tag="known", least_probability=0.7)
    assert in_domain(scores([0.1], [False]), by_tag, tags={"known": 0.7}) is True
    assert in_domain(scores([0.9], [False]), by_tag, tags={"known": 0.6}) is False
    assert in_domain(scores([0.9], [True]), by_tag) is False
