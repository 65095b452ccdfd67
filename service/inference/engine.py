"""One device, one thread, and the windows of all tracks in flight in shared batches.

    track threads                                        device thread
    put(windows) -> [ track A: w w w w w ]  round-robin
    put(windows) -> [ track B: w w       ]  ---------->  batch of windows -> session -> each track's answers
    put(windows) -> [ track C: w w w     ]

Each track waits in a queue of its own and every batch takes windows from all of them in turn, so a short song that
arrives during a long mix is not stuck behind it. A track that has much waiting is held up in :meth:`TrackQueue.put`,
which holds up its decoder: what is alive is bounded, however long the recording.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from service.errors import ErrorKind, ServiceError

_log = logging.getLogger(__name__)

# How often a device that failed is tried again while nobody asks.
_RETRY_S = 2.0

Windows = NDArray[np.float32]
Probabilities = NDArray[np.float32]


class Classifier(Protocol):
    """What the engine needs of a session."""

    max_batch: int
    device: str
    answer_shape: tuple[int, ...]

    def run(self, windows: Windows) -> Probabilities:
        """Normalised windows ``[n, frames, n_mels]`` to answers ``[n, *answer_shape]``, for n up to ``max_batch``."""


@dataclass(slots=True)
class _Block:
    windows: Windows
    put_at: float


class TrackQueue:
    """The windows of one track on their way through the engine; a context manager that takes them out on leaving.

    Used by one thread, but for :meth:`abandon`.

    Attributes:
        queue_s: the longest that a window waited before the device took it up, in seconds.
        inference_s: the track's share of the device's time, in seconds.
    """

    def __init__(
        self,
        lock: threading.Lock,
        *,
        limit: int,
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
        self._answers: list[Probabilities] = []
        self._failure: ServiceError | None = None
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
        """Hand over the next windows; waits while the track has too many unanswered.

        Args:
            windows: normalised, ``[n, frames, n_mels]``.

        Raises:
            ServiceError: if the track was abandoned, or the device failed.
        """
        if not len(windows):
            return
        with self._changed:
            self._wait_until(lambda: self._waiting < self._limit)
            self._blocks.append(_Block(windows, time.monotonic()))
            self._waiting += len(windows)
            self._unanswered += len(windows)
            self._announce(self)

    def finish(self) -> Probabilities:
        """Wait for all answers.

        Returns:
            The classifier's answers in the order of the windows, ``[n_windows, *answer_shape]``;
            an empty array if there were none.

        Raises:
            ServiceError: if the track was abandoned, or the device failed.
        """
        with self._changed:
            self._wait_until(lambda: self._unanswered == 0)
            return np.concatenate(self._answers) if self._answers else np.zeros(0, dtype=np.float32)

    def abandon(self, reason: ServiceError) -> None:
        """Take the track's windows out of the queue, from any thread; whoever waits for it gets ``reason``."""
        with self._changed:
            self.fail(reason)

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        self._changed.wait_for(lambda: self._failure is not None or condition())
        if self._failure is not None:
            raise self._failure

    # What follows is for the engine, which holds the lock.

    @property
    def has_waiting(self) -> bool:
        """Whether there is a window to take."""
        return bool(self._blocks)

    def fail(self, reason: ServiceError) -> None:
        """Drop the windows that wait; whoever waits for the track gets ``reason``."""
        self._failure = self._failure or reason
        self._blocks.clear()
        self._waiting = 0
        self._changed.notify_all()

    def take(self, most: int, now: float) -> Windows:
        """The next windows, at most ``most`` of them and none of a second block."""
        block = self._blocks[0]
        taken, rest = block.windows[:most], block.windows[most:]
        if len(rest):
            block.windows = rest
        else:
            self._blocks.popleft()
        self._waiting -= len(taken)
        self.queue_s = max(self.queue_s, now - block.put_at)
        self._changed.notify_all()
        return taken

    def answer(self, probabilities: Probabilities, seconds: float) -> None:
        """Keep the answers to the windows taken before."""
        self._answers.append(probabilities)
        self._unanswered -= len(probabilities)
        self.inference_s += seconds
        self._changed.notify_all()


class Engine:
    """Runs a classifier in a thread of its own for all tracks in flight."""

    def __init__(self, classifier: Classifier, *, windows_waiting_per_track: int = 256) -> None:
        self.classifier = classifier
        self._limit = windows_waiting_per_track
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._ready: deque[TrackQueue] = deque()
        self._open: set[TrackQueue] = set()
        self._failing: Windows | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._serve, name=f"engine-{classifier.device}", daemon=True)
        self._thread.start()

    @property
    def healthy(self) -> bool:
        """Whether the device thread is there to answer and the device's last run succeeded."""
        return self._thread.is_alive() and self._failing is None

    def open_track(self) -> TrackQueue:
        """A queue for the windows of one more track.

        Raises:
            ServiceError: ``device_failed`` if the device thread has died.
        """
        if not self._thread.is_alive():
            raise _device_failed()
        track = TrackQueue(self._lock, limit=self._limit, announce=self._announce, forget=self._open.discard)
        with self._lock:
            self._open.add(track)
        return track

    def close(self) -> None:
        """Answer what is waiting, then end the device thread."""
        with self._lock:
            self._stopping = True
            self._work.notify()
        self._thread.join()

    def _announce(self, track: TrackQueue) -> None:
        """Put a track that has windows in the round, if it is not in it; the lock is held."""
        if track not in self._ready:
            self._ready.append(track)
        self._work.notify()

    def _serve(self) -> None:
        try:
            while True:
                with self._lock:
                    patience_s = None if self._failing is None else _RETRY_S
                    self._work.wait_for(lambda: self._ready or self._stopping, timeout=patience_s)
                    if self._stopping and not self._ready:
                        return
                    batch = self._next_batch()
                if batch:
                    self._run(batch)
                elif self._failing is not None:
                    self._try_again(self._failing)
        finally:
            # Whatever ended the loop, nobody may wait for an answer that will not come.
            with self._lock:
                for track in tuple(self._open):
                    track.fail(_device_failed())

    def _next_batch(self) -> list[tuple[TrackQueue, Windows]]:
        """Windows of all waiting tracks in turn, an equal share for each, until the batch is full."""
        batch: list[tuple[TrackQueue, Windows]] = []
        room, now = self.classifier.max_batch, time.monotonic()
        while self._ready and room:
            share = max(1, room // len(self._ready))
            for _ in range(min(len(self._ready), room)):
                track = self._ready.popleft()
                if not track.has_waiting:
                    continue
                taken = track.take(min(share, room), now)
                batch.append((track, taken))
                room -= len(taken)
                if track.has_waiting:
                    self._ready.append(track)
        return batch

    def _run(self, batch: list[tuple[TrackQueue, Windows]]) -> None:
        windows = np.concatenate([taken for _, taken in batch])
        began = time.monotonic()
        try:
            probabilities = self.classifier.run(windows)
            self._check_contract(windows, probabilities)
        except Exception:  # noqa: BLE001 - the loop must outlive any failure of a run; the tracks concerned are told
            _log.exception("a batch of %d windows failed on %s", len(windows), self.classifier.device)
            with self._lock:
                self._failing = np.zeros_like(windows[:1])
                for track, _ in batch:
                    track.fail(_device_failed())
            return
        seconds = (time.monotonic() - began) / len(windows)
        with self._lock:
            self._failing = None
            begin = 0
            for track, taken in batch:
                track.answer(probabilities[begin : begin + len(taken)], seconds * len(taken))
                begin += len(taken)

    def _try_again(self, window: Windows) -> None:
        """See whether a device that failed works again, without waiting for a track to lose by it."""
        try:
            self._check_contract(window, self.classifier.run(window))
        except Exception as error:  # noqa: BLE001 - as above
            _log.warning("%s still fails: %s", self.classifier.device, error)
        else:
            _log.info("%s works again", self.classifier.device)
            self._failing = None

    def _check_contract(self, windows: Windows, probabilities: Probabilities) -> None:
        """As many answers as windows, each of the promised shape: else tracks would get each other's answers."""
        if probabilities.shape != (len(windows), *self.classifier.answer_shape):
            raise ValueError(f"{len(windows)} windows gave answers of shape {probabilities.shape}")


def _device_failed() -> ServiceError:
    return ServiceError(ErrorKind.DEVICE_FAILED, "The inference device failed; try again in a moment.", retry_after_s=5)
