"""What a device thread runs, and what its supervisor sees of it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Protocol

from service.inference.tracks import Probabilities, Windows


class Classifier(Protocol):
    """What the engine needs of a session."""

    max_batch: int
    device: str
    precision: str
    answer_shape: tuple[int, ...]

    def run(self, windows: Windows) -> Probabilities:
        """Normalised windows ``[n, frames, n_mels]`` to answers ``[n, *answer_shape]``, for n up to ``max_batch``.

        Called by as many threads at once as the engine has.
        """


@dataclass(slots=True)
class Worker:
    """A device thread; once given up, nothing that it still says counts."""

    classifier: Classifier
    thread: threading.Thread | None = None
    busy_since: float | None = None
    excused_s: float = 0.0
    alive: bool = True
    given_up: threading.Event = field(default_factory=threading.Event)
