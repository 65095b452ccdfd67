"""When a track is what: the most plausible division of its windows into runs of one genre."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import Section, WindowScores

# A change of genre must pay for itself: it costs as much likelihood as six nats, about what three windows in a row
# with 0.9 against 0.1 bring in. Without a price, single odd windows would cut a song into dozens of sections.
_CHANGE_COST_NATS = 6.0
_SMALLEST = 1e-6


def sections(scores: WindowScores, labels: Sequence[str], *, window_s: float, duration_s: float) -> tuple[Section, ...]:
    """Divide a track into sections.

    Between two changes one genre leads; the sequence of genres is the one with the greatest product of window
    probabilities when each change costs a constant factor (the Viterbi path of a chain with uniform transitions).
    A border lies halfway between the centres of the windows on its two sides. Silent stretches belong to no section.

    Args:
        scores: of all windows, in order of time.
        labels: of the columns of ``scores.probabilities``.
        window_s: length of a window, in seconds.
        duration_s: length of the track, in seconds.

    Returns:
        Sections in order of time, each with the mean probability of its genre over its windows.
    """
    n_windows = len(scores.start_s)
    if n_windows == 0 or scores.silent.all():
        return ()
    centres = scores.start_s + window_s / 2
    borders = np.concatenate(([0.0], (centres[1:] + centres[:-1]) / 2, [duration_s]))
    found = []
    for begin, end in _runs(scores.silent):
        if scores.silent[begin]:
            continue
        path = _best_path(scores.probabilities[begin:end])
        for first, last in _runs(path):
            genre = int(path[first])
            mean = scores.probabilities[begin + first : begin + last, genre].mean(dtype=np.float64)
            found.append(
                Section(
                    start_s=float(borders[begin + first]),
                    end_s=float(borders[begin + last]),
                    genre=labels[genre],
                    share=float(mean),
                )
            )
    return tuple(found)


def _runs(values: NDArray[np.generic]) -> list[tuple[int, int]]:
    """Half-open index ranges of equal neighbours."""
    edges = [0, *(np.flatnonzero(values[1:] != values[:-1]) + 1).tolist(), len(values)]
    return list(pairwise(edges))


def _best_path(probabilities: NDArray[np.float32]) -> NDArray[np.intp]:
    gains = np.log(np.maximum(probabilities, _SMALLEST, dtype=np.float64))
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
