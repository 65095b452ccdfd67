"""Summed score and majority vote with ties and silence, computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from wholetrack.aggregation.ranking import majority_vote, summed_score
from wholetrack.contracts import WindowScores

LABELS = ("blues", "jazz", "rock")


def scores(*rows: list[float], silent: tuple[int, ...] = ()) -> WindowScores:
    mask = np.isin(np.arange(len(rows)), silent)
    return WindowScores(np.arange(len(rows), dtype=float), np.array(rows, dtype=np.float32), mask)


def test_the_two_rankings_may_differ() -> None:
    windows = scores([0.4, 0.5, 0.1], [0.4, 0.5, 0.1], [0.9, 0.0, 0.1])
    summed, voted = summed_score(windows, LABELS), majority_vote(windows, LABELS)
    assert [(r.genre, round(r.share, 6)) for r in summed.ranked] == [
        ("blues", round(1.7 / 3, 6)),
        ("jazz", round(1.0 / 3, 6)),
        ("rock", 0.1),
    ]
    assert [(r.genre, r.windows) for r in voted.ranked] == [("jazz", 2), ("blues", 1), ("rock", 0)]
    assert voted.share == 2 / 3


def test_a_tie_in_votes_is_resolved_by_the_summed_score() -> None:
    windows = scores([0.6, 0.0, 0.4], [0.0, 0.9, 0.1])
    assert [r.genre for r in majority_vote(windows, LABELS).ranked] == ["jazz", "blues", "rock"]


def test_a_tie_in_scores_is_resolved_by_label_order() -> None:
    windows = scores([0.25, 0.5, 0.25], [0.25, 0.0, 0.75], [0.5, 0.5, 0.0])
    assert [r.genre for r in summed_score(windows, LABELS).ranked] == ["blues", "jazz", "rock"]


def test_silent_windows_count_for_neither_ranking() -> None:
    windows = scores([0.0, 0.0, 1.0], [0.9, 0.1, 0.0], [0.0, 0.0, 1.0], silent=(0, 2))
    assert summed_score(windows, LABELS).genre == "blues"
    assert majority_vote(windows, LABELS).ranked[0].windows == 1


def test_a_silent_track_has_no_genre() -> None:
    windows = scores([1.0, 0.0, 0.0], silent=(0,))
    for ranking in (summed_score(windows, LABELS), majority_vote(windows, LABELS)):
        assert ranking.genre is None
        assert ranking.share == 0.0
        assert ranking.ranked == ()


def test_shares_add_up_to_one_for_half_a_million_windows() -> None:
    rng = np.random.default_rng(0)
    rows = rng.dirichlet([0.3, 0.3, 0.3], 500_000).astype(np.float32)
    windows = WindowScores(np.arange(len(rows), dtype=float), rows, np.zeros(len(rows), dtype=bool))
    for ranking in (summed_score(windows, LABELS), majority_vote(windows, LABELS)):
        assert sum(r.share for r in ranking.ranked) == pytest.approx(1.0, abs=1e-12)
    # Sums in float32 would have lost the third decimal by now.
    exact = rows.astype(np.float64).sum(axis=0)
    shares = {r.genre: r.share for r in summed_score(windows, LABELS).ranked}
    assert shares["jazz"] == pytest.approx(exact[1] / exact.sum(), abs=1e-12)
