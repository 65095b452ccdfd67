"""The scores of a track's windows in chronological order, while the network is still classifying them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wholetrack.aggregation.window_scores import window_scores
from wholetrack.contracts import ModelCard, WindowScores


class LiveScores:
    """Combines windows and outputs, which arrive at different times and, on several devices, out of order.

    Args:
        card: Contents of the model's ``model.json``.
    """

    def __init__(self, card: ModelCard) -> None:
        self._card = card
        self._start_s = np.zeros(0)
        self._silent = np.zeros(0, dtype=np.bool_)
        self._outputs: dict[int, NDArray[np.float32]] = {}
        self._n_taken = 0
        self._covered_until = -np.inf

    def add_windows(self, start_s: NDArray[np.float64], silent: NDArray[np.bool_]) -> None:
        """Append the next windows of the track."""
        self._start_s = np.concatenate([self._start_s, start_s])
        self._silent = np.concatenate([self._silent, silent])

    def add_outputs(self, position: int, outputs: NDArray[np.float32]) -> None:
        """Store the outputs for the windows with sound that start at ``position``."""
        self._outputs[position] = outputs

    def take(self) -> WindowScores:
        """Return the scores of the next windows, up to the first one that is not classified yet.

        Together, the results of all calls are the scores of the track.
        """
        outputs = self._next_outputs()
        n_outputs = sum(map(len, outputs))
        # The windows before the first one with sound whose output is missing.
        n_windows = int(np.searchsorted(np.cumsum(~self._silent), n_outputs, side="right"))
        start_s, self._start_s = np.split(self._start_s, [n_windows])
        silent, self._silent = np.split(self._silent, [n_windows])
        shape = (n_windows, *self._card.output_shape)
        probabilities = np.full(shape, 1.0 / len(self._card.labels), dtype=np.float32)
        if n_outputs:
            probabilities[~silent] = np.concatenate(outputs)
        scores = window_scores(start_s, probabilities, silent, self._card, covered_until=self._covered_until)
        if len(scores.start_s):
            self._covered_until = float(scores.start_s[-1]) + self._card.step_s
        return scores

    def _next_outputs(self) -> list[NDArray[np.float32]]:
        outputs = []
        while self._n_taken in self._outputs:
            part = self._outputs.pop(self._n_taken)
            outputs.append(part)
            self._n_taken += len(part)
        return outputs
