"""The windows of one track on their way through the engine, and the answers on their way back."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from wholetrack.errors import ErrorKind, ServiceError

Windows = NDArray[np.float32]
Probabilities = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Taken:
    """Windows of a track in the hands of a device thread.

    Attributes:
        track: whose they are.
        position: of the first of them in the track.
        windows: normalised, ``[n, frames, n_mels]``.
    """

    track: TrackQueue
    position: int
    windows: Windows

    def halves(self) -> tuple[Taken, Taken]:
        """The earlier and the later windows."""
        middle = len(self.windows) // 2
        later = Taken(self.track, self.position + middle, self.windows[middle:])
        return Taken(self.track, self.position, self.windows[:middle]), later


@dataclass(slots=True)
class _Block:
    windows: Windows
    put_at: float


class TrackQueue:
    """The windows of one track on their way through the engine; a context manager that takes them out on leaving.

    Used by one thread, but for :meth:`abandon`.

    Attributes:
        weight: its share of a batch, in proportion to those of the other tracks in it.
        queue_s: the longest that a window waited before the device took it up, in seconds.
        inference_s: the track's share of the device's time, in seconds.
    """

    def __init__(
        self,
        lock: threading.Lock,
        *,
        limit: int,
        weight: int,
        announce: Callable[[TrackQueue], None],
        forget: Callable[[TrackQueue], None],
    ) -> None:
        self._announce = announce
        self._forget = forget
        self._changed = threading.Condition(lock)
        self._limit = limit
        self._blocks: deque[_Block] = deque()
        self._waiting = 0
        self._unanswered = 0
        self._taken = 0
        self._answers: dict[int, Probabilities] = {}
        self._failure: ServiceError | None = None
        self.weight = weight
        self.queue_s = 0.0
        self.inference_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self.fail(ServiceError(ErrorKind.CLIENT_GONE, "The track was closed."))
            self._forget(self)

    def put(self, windows: Windows) -> None:
        """Hand over the next windows; waits while too many wait for the device.

        Args:
            windows: normalised, ``[n, frames, n_mels]``.

        Raises:
            ServiceError: if the track was abandoned, or the device failed.
        """
        if not len(windows):
            return
        with self._changed:
            self._wait_until(lambda: self._failure is None and self._waiting < self._limit)
            self._blocks.append(_Block(windows, time.monotonic()))
            self._waiting += len(windows)
            self._unanswered += len(windows)
            self._announce(self)

    def finish(self) -> Probabilities:
        """Wait for all answers.

        Returns:
            The classifier's answers in the order of the windows, ``[n_windows, *output_shape]``;
            an empty array if there were none.

        Raises:
            ServiceError: if the track was abandoned, or the device failed.
        """
        with self._changed:
            self._wait_until(lambda: self._unanswered == 0)
            if not self._answers:
                return np.zeros(0, dtype=np.float32)
            return np.concatenate([self._answers[position] for position in sorted(self._answers)])

    def settle(self, most_s: float) -> None:
        """Wait until all answers are there or will not come, but for no more than so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._failure is not None or self._unanswered == 0, timeout=most_s)

    def abandon(self, reason: ServiceError) -> None:
        """Take the track's windows out of the queue, from any thread; whoever waits for it gets ``reason``."""
        with self._changed:
            self.fail(reason)

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        """What is complete is not spoiled by a failure that comes after it."""
        self._changed.wait_for(lambda: self._failure is not None or condition())
        if self._failure is not None and not condition():
            raise self._failure

    # What follows is for the engine, which holds the lock.

    @property
    def n_waiting(self) -> int:
        """How many windows there are to take."""
        return self._waiting

    @property
    def failed(self) -> bool:
        """Whether nobody wants answers any more."""
        return self._failure is not None

    def fail(self, reason: ServiceError) -> None:
        """Drop the windows that wait; whoever waits for the track gets ``reason``."""
        self._failure = self._failure or reason
        self._blocks.clear()
        self._waiting = 0
        self._changed.notify_all()

    def take(self, most: int, now: float) -> Taken:
        """The next windows, at most ``most`` of them and none of a second block."""
        block = self._blocks[0]
        taken, rest = block.windows[:most], block.windows[most:]
        if len(rest):
            block.windows = rest
        else:
            self._blocks.popleft()
        position, self._taken = self._taken, self._taken + len(taken)
        self._waiting -= len(taken)
        self.queue_s = max(self.queue_s, now - block.put_at)
        self._changed.notify_all()
        return Taken(self, position, taken)

    def answer(self, position: int, probabilities: Probabilities, seconds: float) -> None:
        """Keep the answers to the windows from a position on; they may come in any order."""
        self._answers[position] = probabilities
        self._unanswered -= len(probabilities)
        self.inference_s += seconds
        self._changed.notify_all()
