"""Recordings that were heard before: the same bytes, asked the same, are not decoded again."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

from cachetools import LRUCache

from wholetrack.contracts import StageTimes, TrackPrediction

_NO_TIME = StageTimes(decode=0.0, features=0.0, queue=0.0, inference=0.0)
# What a prediction holds beside the arrays of its windows.
_OVERHEAD_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Question:
    """What decides a prediction.

    Attributes:
        sha256: of the recording's bytes.
        model: name and version.
        hop_s: as asked for; None for the model's.
    """

    sha256: str
    model: tuple[str, str]
    hop_s: float | None


class Repeats:
    """Predictions of the most recent questions, in a bounded amount of memory; may be used by any thread.

    Args:
        max_bytes: of all predictions together; 0 remembers none.
    """

    def __init__(self, max_bytes: int) -> None:
        self._lock = threading.Lock()
        self._known: LRUCache[Question, TrackPrediction] = LRUCache(max_bytes, getsizeof=_size)

    def get(self, question: Question) -> TrackPrediction | None:
        """The prediction of a recording that was heard before, no stage of which took any time now."""
        with self._lock:
            found: TrackPrediction | None = self._known.get(question)
        return found and replace(found, times=_NO_TIME)

    def put(self, question: Question, found: TrackPrediction) -> None:
        """Remember a prediction, unless it is larger than all that may be remembered."""
        if _size(found) <= self._known.maxsize:
            with self._lock:
                self._known[question] = found


def _size(found: TrackPrediction) -> int:
    windows = found.windows
    return _OVERHEAD_BYTES + windows.start_s.nbytes + windows.probabilities.nbytes + windows.silent.nbytes
