"""What a device thread runs, what its supervisor sees of it, and how it is opened again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from wholetrack.inference.gpu_memory import GpuMemory
from wholetrack.inference.queue import Probabilities, Taken, Windows

_log = logging.getLogger(__name__)


class Classifier(Protocol):
    """What the engine needs of a session."""

    max_batch: int
    device: str
    precision: str
    output_shape: tuple[int, ...]

    @property
    def memory(self) -> GpuMemory | None:
        """Of its GPU after its last run; None on a CPU."""

    def run(self, windows: Windows) -> Probabilities:
        """Normalised windows ``[n, frames, n_mels]`` to answers ``[n, *output_shape]``, for n up to ``max_batch``.

        Called at once by all threads of the engine that share it.
        """


@dataclass(slots=True, eq=False)
class Worker:
    """A device thread; once given up, nothing that it still says counts.

    Attributes:
        failing: nothing of the last batch was answered; until silence is, it takes windows only if nobody else does.
        batch: what it has taken and not yet answered.
    """

    classifier: Classifier
    failing: bool = False
    batch: list[Taken] = field(default_factory=list)
    thread: threading.Thread | None = None
    busy_since: float | None = None
    excused_s: float = 0.0
    alive: bool = True
    given_up: threading.Event = field(default_factory=threading.Event)

    @property
    def at_work(self) -> bool:
        """Whether it is there to answer."""
        return self.alive and not self.given_up.is_set()

    def run(self, windows: Windows) -> Probabilities:
        """The classifier's answers, as many as windows, each of the promised shape and of numbers.

        Raises:
            ValueError: if they are not: tracks would get others' answers.
        """
        probabilities = self.classifier.run(windows)
        if probabilities.shape != (len(windows), *self.classifier.output_shape):
            raise ValueError(f"{len(windows)} windows gave answers of shape {probabilities.shape}")
        if not np.isfinite(probabilities).all():
            raise ValueError(f"{len(windows)} windows gave answers that are no numbers")
        return probabilities


class Opening(threading.Thread):
    """Opens a classifier again, in a thread that may hang without taking the supervisor with it.

    Attributes:
        found: the fresh one, when the thread has ended; None if it could not be opened.
    """

    def __init__(self, reopen: Callable[[Classifier], Classifier], old: Classifier) -> None:
        super().__init__(name=f"open-{old.device}", daemon=True)
        self._reopen, self._old = reopen, old
        self.found: Classifier | None = None
        self.start()

    def run(self) -> None:
        """What the thread does."""
        try:
            self.found = self._reopen(self._old)
        except Exception:  # noqa: BLE001 - whatever a driver raises, the engine goes on trying
            _log.exception("%s cannot be opened again", self._old.device)
