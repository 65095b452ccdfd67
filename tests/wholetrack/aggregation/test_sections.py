"""Sections: runs of one genre, without single outliers."""

from __future__ import annotations

import numpy as np

from wholetrack.aggregation.sections import sections
from wholetrack.contracts import Section, WindowScores

LABELS = ("blues", "jazz", "rock")


def cut(leaders: str, *, duration_s: float, sure: float = 0.8) -> tuple[Section, ...]:
    """Return the sections of a track whose windows are blues (b), jazz (j), rock (r) or silent (-)."""
    rows = np.full((len(leaders), 3), (1 - sure) / 2, dtype=np.float32)
    for i, leader in enumerate(leaders):
        if leader != "-":
            rows[i, "bjr".index(leader)] = sure
    silent = np.array([leader == "-" for leader in leaders])
    scores = WindowScores(np.arange(len(leaders), dtype=float), rows, silent)
    return sections(scores, LABELS, window_s=3.0, duration_s=duration_s)


def test_a_single_genre_is_one_section_from_start_to_end() -> None:
    (only,) = cut("bbbb", duration_s=6.5)
    assert (only.start_s, only.end_s, only.genre) == (0.0, 6.5, "blues")
    assert round(only.share, 6) == 0.8


def test_a_boundary_is_halfway_between_the_centres_of_two_windows() -> None:
    found = cut("bbbbbbjjjjjj", duration_s=14.0)
    assert [(s.start_s, s.end_s, s.genre) for s in found] == [(0.0, 7.0, "blues"), (7.0, 14.0, "jazz")]


def test_a_single_outlier_is_not_a_section() -> None:
    assert [s.genre for s in cut("bbbbbrbbbbb", duration_s=13.0)] == ["blues"]


def test_silence_belongs_to_no_section_and_separates_sections() -> None:
    found = cut("bbbb---jjjj", duration_s=13.0)
    assert [(s.start_s, s.end_s, s.genre) for s in found] == [(0.0, 5.0, "blues"), (8.0, 13.0, "jazz")]


def test_a_silent_track_has_no_sections() -> None:
    assert cut("---", duration_s=5.0) == ()


def test_a_probability_of_zero_is_handled() -> None:
    assert [s.genre for s in cut("bbbbbbrrrrrr", duration_s=14.0, sure=1.0)] == ["blues", "rock"]
