"""What a device thread runs, and what its supervisor sees of it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Protocol

from service.inference.gpu_memory import GpuMemory
from service.inference.tracks import Probabilities, Taken, Windows


class Classifier(Protocol):
    """What the engine needs of a session."""

    max_batch: int
    device: str
    precision: str
    answer_shape: tuple[int, ...]

    @property
    def memory(self) -> GpuMemory | None:
        """Of its GPU after its last run; None on a CPU."""

    def run(self, windows: Windows) -> Probabilities:
        """Normalised windows ``[n, frames, n_mels]`` to answers ``[n, *answer_shape]``, for n up to ``max_batch``.

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
