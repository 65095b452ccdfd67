"""Divides a track into sections of one genre each, by the most likely sequence of genres."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import Section, WindowScores

# A change of genre costs six nats of log-likelihood, about the gain of three consecutive windows at 0.9 against 0.1.
# Without a cost, single outliers would divide a song into dozens of sections.
_CHANGE_COST_NATS = 6.0
_MIN_PROBABILITY = 1e-6


def sections(scores: WindowScores, labels: Sequence[str], *, window_s: float, duration_s: float) -> tuple[Section, ...]:
    """Divide a track into sections.

    The sequence of genres is the one with the largest product of window probabilities, where each change costs a
    constant factor (the Viterbi path of a Markov chain with uniform transitions). A boundary lies halfway between the
    centres of the windows on its two sides. Silent parts belong to no section.

    Args:
        scores: Scores of all windows, in chronological order.
        labels: Genre of each column of ``scores.probabilities``.
        window_s: Length of a window, in seconds.
        duration_s: Length of the track, in seconds.

    Returns:
        Sections in chronological order, each with the mean probability of its genre over its windows.
    """
    n_windows = len(scores.start_s)
    if n_windows == 0 or scores.silent.all():
        return ()
    centres = scores.start_s + window_s / 2
    boundaries = np.concatenate(([0.0], (centres[1:] + centres[:-1]) / 2, [duration_s]))
    found = []
    for begin, end in _runs(scores.silent):
        if scores.silent[begin]:
            continue
        path = _viterbi(scores.probabilities[begin:end])
        for first, last in _runs(path):
            genre = int(path[first])
            mean = scores.probabilities[begin + first : begin + last, genre].mean(dtype=np.float64)
            found.append(
                Section(
                    start_s=float(boundaries[begin + first]),
                    end_s=float(boundaries[begin + last]),
                    genre=labels[genre],
                    share=float(mean),
                )
            )
    return tuple(found)


def _runs(values: NDArray[np.generic]) -> list[tuple[int, int]]:
    """Return the half-open index ranges of runs of equal values."""
    edges = [0, *(np.flatnonzero(values[1:] != values[:-1]) + 1).tolist(), len(values)]
    return list(pairwise(edges))


def _viterbi(probabilities: NDArray[np.float32]) -> NDArray[np.intp]:
    gains = np.log(np.maximum(probabilities, _MIN_PROBABILITY, dtype=np.float64))
    n_windows, n_labels = gains.shape
    came_from = np.empty((n_windows, n_labels), dtype=np.intp)
    stay = np.arange(n_labels)
    best = gains[0]
    for window in range(1, n_windows):
        leader = int(best.argmax())
        changed = best[leader] - _CHANGE_COST_NATS
        came_from[window] = np.where(best >= changed, stay, leader)
        best = np.maximum(best, changed) + gains[window]
    path = np.empty(n_windows, dtype=np.intp)
    path[-1] = int(best.argmax())
    for window in range(n_windows - 1, 0, -1):
        path[window - 1] = came_from[window, path[window]]
    return path
