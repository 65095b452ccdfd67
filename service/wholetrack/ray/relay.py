"""Following a track from another process: an observer that turns what it is told into events."""

from __future__ import annotations

import asyncio
from collections import deque

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import ModelCard, Rows, TaxonomySpec
from wholetrack.observer import Observer
from wholetrack.ray.messages import Classified, Cut, Decoded, Event, Started


class Relay(Observer):
    """Collects events until they are sent. Threads of the track and of the engine only append to a queue.

    Args:
        peaks_per_s: Number of peaks of the waveform per second of audio.
        taxonomy: Name of the taxonomy in which the genres are read.

    Attributes:
        changed: Set on the event loop when there are new events.
    """

    def __init__(self, peaks_per_s: int, taxonomy: str | None) -> None:
        self.peaks_per_s = peaks_per_s
        self.changed = asyncio.Event()
        self._taxonomy = taxonomy
        self._loop = asyncio.get_running_loop()
        self._events: deque[Event] = deque()

    def started(self, card: ModelCard, hop_s: float, taxonomy: TaxonomySpec | None) -> None:
        """Add the beginning of an attempt. The receiver knows the model and its taxonomies."""
        del card, taxonomy
        self._append(Started(hop_s, self._taxonomy))

    def decoded(self, n_samples: int, peaks: NDArray[np.float32]) -> None:
        """Add decoded audio."""
        self._append(Decoded(n_samples, peaks))

    def cut(self, start_s: NDArray[np.float64], silent: NDArray[np.bool_]) -> None:
        """Add the times of windows."""
        self._append(Cut(start_s, silent))

    def classified(self, position: int, outputs: Rows) -> None:
        """Add the scores of windows."""
        self._append(Classified(position, outputs.arrays[0]))

    def take(self) -> list[Event]:
        """Return the events since the last call."""
        self.changed.clear()
        return [self._events.popleft() for _ in range(len(self._events))]

    def _append(self, event: Event) -> None:
        self._events.append(event)
        self._loop.call_soon_threadsafe(self.changed.set)
