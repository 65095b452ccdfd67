"""The windows of all open tracks, and the batches that workers take from them.

Each track has a queue of its own, and every batch takes windows from all of them in turn, so a short song that arrives
during a long mix does not wait behind it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from wholetrack.contracts import Rows
from wholetrack.errors import ServiceError
from wholetrack.inference.outputs import Keep
from wholetrack.inference.queue import BatchSlice, TrackQueue


class BatchQueue:
    """Open tracks, and a round-robin over those that have windows waiting.

    Args:
        max_waiting_per_track: Number of windows that may wait per track before :meth:`TrackQueue.put` blocks.
        min_share: Number of windows that a batch takes at least from a track with that many, if they fit. More than
            one if consecutive windows cost less together.

    Attributes:
        lock: Guards this object, its tracks, and the workers' state. Methods below the marked line expect it to be
            held.
    """

    def __init__(self, *, max_waiting_per_track: int, min_share: int = 1) -> None:
        self.lock = threading.Lock()
        self._changed = threading.Condition(self.lock)
        self._max_waiting_per_track = max_waiting_per_track
        self._min_share = min_share
        self._ready: deque[TrackQueue] = deque()
        self._open: set[TrackQueue] = set()
        self._refusal: ServiceError | None = None
        self._closed = False

    def open_track(
        self, *, weight: int, keep: Sequence[Keep] | None, convert: Callable[[Rows], Rows] | None
    ) -> TrackQueue:
        """Open a queue for the windows of one more track.

        Args:
            weight: Share of each batch relative to the other open tracks, at least 1.
            keep: What to keep of each output; None to keep the rows of all.
            convert: Applied to the outputs before they are kept; None for no change.

        Raises:
            ServiceError: If no windows are currently accepted.
        """
        with self.lock:
            if self._refusal is not None:
                # Otherwise its traceback would grow with every track that is refused.
                raise self._refusal.with_traceback(None)
            track = TrackQueue(
                self.lock,
                max_waiting=self._max_waiting_per_track,
                weight=weight,
                keep=keep,
                convert=convert,
                on_ready=self._on_ready,
                on_close=self._open.discard,
            )
            self._open.add(track)
        return track

    # From here on the caller holds the lock.

    @property
    def n_waiting(self) -> int:
        """Number of windows that no worker has taken yet."""
        return sum(track.n_waiting for track in self._open)

    @property
    def n_tracks(self) -> int:
        """Number of open tracks."""
        return len(self._open)

    def close(self, refusal: ServiceError) -> None:
        """Accept no more tracks. Workers end once the remaining windows are classified."""
        self._closed = True
        self._refusal = refusal
        self._changed.notify_all()

    def refuse(self, error: ServiceError) -> None:
        """Fail all open tracks and every new one with ``error``, until :meth:`accept` is called."""
        self._refusal = error
        for track in self._open:
            track.fail(error)
        self._ready.clear()

    def accept(self) -> None:
        """Accept tracks again after :meth:`refuse`, unless the queue is closed."""
        if not self._closed:
            self._refusal = None

    def wake_workers(self) -> None:
        """Make waiting workers check again whether they should stop."""
        self._changed.notify_all()

    def wait_for_batch(self, max_windows: int, *, stopped: Callable[[], bool]) -> list[BatchSlice]:
        """Wait for windows and take the next batch.

        Returns:
            At most ``max_windows`` windows; an empty list if the worker should end.
        """
        while True:
            self._changed.wait_for(lambda: self._ready or self._closed or stopped())
            if stopped():
                return []
            batch = self._next_batch(max_windows)
            # Every track that was ready may have failed since.
            if batch or self._closed:
                return batch

    def _on_ready(self, track: TrackQueue) -> None:
        if track not in self._ready:
            self._ready.append(track)
        self._changed.notify()

    def _next_batch(self, max_windows: int) -> list[BatchSlice]:
        """Take windows from all waiting tracks in turn, in proportion to their weights, until the batch is full."""
        batch: list[BatchSlice] = []
        capacity = max_windows
        while self._ready and capacity:
            share = max(self._min_share, capacity // sum(track.weight for track in self._ready))
            for _ in range(len(self._ready)):
                if not capacity:
                    break
                track = self._ready.popleft()
                if not track.n_waiting:
                    continue
                taken = track.take(min(share * track.weight, capacity))
                batch.append(taken)
                capacity -= len(taken.windows)
                if track.n_waiting:
                    self._ready.append(track)
        if self._ready:
            self._changed.notify()
        return batch


def halve(batch: list[BatchSlice]) -> tuple[list[BatchSlice], list[BatchSlice]]:
    """Split a batch in two: between tracks if it has several, else between the windows of its only track."""
    if len(batch) > 1:
        middle = len(batch) // 2
        return batch[:middle], batch[middle:]
    earlier, later = batch[0].halves()
    return [earlier], [later]
