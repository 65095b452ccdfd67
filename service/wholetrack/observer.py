"""Following a track while the pipeline works on it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import ModelCard, Rows, TaxonomySpec


class Observer:
    """Receives the waveform and the windows of one track as they become available. This one ignores them.

    Attributes:
        peaks_per_s: Number of peaks of the waveform per second of audio that it wants; 0 for none.
    """

    peaks_per_s = 0

    def started(self, card: ModelCard, hop_s: float, taxonomy: TaxonomySpec | None) -> None:
        """Note that the track is about to be decoded from its beginning.

        A track may have to be decoded again, with another plan. Everything reported before a further call is then void.

        Args:
            card: Contents of the model's ``model.json``.
            hop_s: Time between window starts in seconds.
            taxonomy: The taxonomy in which the genres are read; None for the labels of the model.
        """

    def decoded(self, n_samples: int, peaks: NDArray[np.float32]) -> None:
        """Note that more of the track was decoded.

        Args:
            n_samples: Number of further samples at the sample rate of the model.
            peaks: The largest absolute value of each interval that is complete by now, ``[n_peaks]``.
        """

    def cut(self, start_s: NDArray[np.float64], silent: NDArray[np.bool_]) -> None:
        """Receive the starts of the next windows in seconds, and whether each is silent, ``[n_windows]``."""

    def classified(self, position: int, outputs: Rows) -> None:
        """Receive the outputs for some of the windows with sound; the first of them are the scores.

        A worker calls this with the lock of the engine held, so it may only store them.

        Args:
            position: Index of the first of them among the windows with sound.
            outputs: What the network returned.
        """
