"""Figures of an evaluation, calculated by hand."""

from __future__ import annotations

import numpy as np
import pytest

from wholetrack_training.fitting.evaluation import evaluate_scores, expected_calibration_error


def test_figures_of_three_tracks() -> None:
    probabilities = [
        np.array([[1.0, 0.0, 0.0], [0.25, 0.75, 0.0], [0.25, 0.75, 0.0]], dtype=np.float32),
        np.array([[0.0, 0.25, 0.75]], dtype=np.float32),
        np.array([[0.0, 0.625, 0.375]], dtype=np.float32),
    ]
    found = evaluate_scores(probabilities, [0, 2, 2], ("a", "b", "c"))
    assert found.n_windows == 5
    assert found.window_accuracy == pytest.approx(2 / 5)
    # By sum the first track is a tie between 1.5 and 1.5, which is resolved by label order. By vote it is wrong.
    assert found.track_accuracy_summed == pytest.approx(2 / 3)
    assert found.track_accuracy_voted == pytest.approx(1 / 3)
    assert found.confusion == ((1, 0, 0), (0, 0, 0), (0, 1, 1))
    # F1 of a: 1, of b: 0 (only predicted), of c: 2 * 1 / (2 + 1).
    assert found.track_macro_f1_summed == pytest.approx((1 + 0 + 2 / 3) / 3)
    assert found.top2 == 1.0
    assert found.ece == pytest.approx((0.5 + 0.25 + 0.625) / 3, abs=1e-6)
    assert found.shares == ((0.5, 0.5, 0.0), (0.0, 0.25, 0.75), (0.0, 0.625, 0.375))
    assert found.peaks == (0.8333, 0.75, 0.625)


def test_perfect_calibration_has_no_error() -> None:
    confidence = np.array([0.75] * 4 + [1.0])
    assert expected_calibration_error(confidence, np.array([True, True, True, False, True])) == 0.0
