"""Turns the network's outputs into scores per window, or per step if the network yields several per window."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import ModelCard, WindowScores, WindowTimes


class WindowLog:
    """Start times and silence of a track's windows, kept while the network classifies those with sound."""

    def __init__(self) -> None:
        self._start_s: list[NDArray[np.float64]] = []
        self._silent: list[NDArray[np.bool_]] = []
        self.n_windows = 0
        """Number of windows added so far."""

    def add(self, start_s: NDArray[np.float64], silent: NDArray[np.bool_]) -> None:
        """Append the next windows of the track."""
        self._start_s.append(start_s)
        self._silent.append(silent)
        self.n_windows += len(start_s)

    def times(self) -> WindowTimes:
        """Return the start and the silence of all windows."""
        return WindowTimes(np.concatenate(self._start_s), np.concatenate(self._silent))


def track_scores(times: WindowTimes, outputs: NDArray[np.float32] | None, card: ModelCard) -> WindowScores:
    """Combine the outputs for the windows with sound and uniform probabilities for the silent ones.

    Args:
        times: All windows of the track.
        outputs: Outputs for the windows that are not silent, ``[n, *card.output_shape]``; None if all are.
        card: Contents of the model's ``model.json``.
    """
    probabilities = np.full((len(times.silent), *card.output_shape), 1.0 / len(card.labels), dtype=np.float32)
    if outputs is not None:
        probabilities[~times.silent] = outputs
    return window_scores(times.start_s, probabilities, times.silent, card)


def window_scores(
    start_s: NDArray[np.float64],
    outputs: NDArray[np.float32],
    silent: NDArray[np.bool_],
    card: ModelCard,
    *,
    covered_until: float = -np.inf,
) -> WindowScores:
    """Return the scores of every window, or of every step if the network yields several per window.

    Where windows overlap, the steps of the earlier window are used, because its recurrent layers have seen more of the
    track than those of a window that has just begun. A window adds no step if it ends before the next whole step.

    Args:
        start_s: Start of each window, in seconds, ``[n_windows]``.
        outputs: ``[n_windows, *card.output_shape]``.
        silent: Whether each window is silent and has no vote, ``[n_windows]``.
        card: Contents of the model's ``model.json``.
        covered_until: End of the steps of earlier windows, in seconds.
    """
    if card.outputs.scores.steps is None:
        return WindowScores(start_s, outputs, silent)
    n_steps, step_s = card.outputs.scores.steps, card.step_s
    step_start_s = start_s[:, None] + np.arange(n_steps) * step_s
    kept = np.zeros(step_start_s.shape, dtype=np.bool_)
    for i in range(len(start_s)):
        # Half a step of tolerance, because windows lie on the grid of frames, not on the grid of steps.
        kept[i] = step_start_s[i] > covered_until - step_s / 2
        if kept[i, -1]:
            covered_until = step_start_s[i, -1] + step_s
    return WindowScores(step_start_s[kept], outputs[kept], silent.repeat(n_steps)[kept.ravel()])
