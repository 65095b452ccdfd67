"""The queue of one track: windows on their way to the device, and the network's outputs on their way back."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from wholetrack.contracts import Rows, Windows
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.inference.outputs import Keep, OutputStore, TrackOutputs


@dataclass(frozen=True, slots=True)
class BatchSlice:
    """The part of a batch that belongs to one track.

    Attributes:
        track: The queue that the windows came from.
        position: Index of the first window within the track.
        windows: Normalised windows.
    """

    track: TrackQueue
    position: int
    windows: Windows

    def halves(self) -> tuple[BatchSlice, BatchSlice]:
        """Split into the earlier and the later windows."""
        middle = len(self.windows) // 2
        later = BatchSlice(self.track, self.position + middle, self.windows[middle:])
        return BatchSlice(self.track, self.position, self.windows[:middle]), later


class TrackQueue:
    """The windows of one track in the engine. As a context manager, it discards what is left when the block ends.

    One thread uses it, except for :meth:`abandon`, which any thread may call.

    Attributes:
        weight: Share of each batch relative to the other open tracks.
        on_output: Called with the position and the outputs of each slice that is classified before the track is closed,
            with the lock held.
    """

    def __init__(
        self,
        lock: threading.Lock,
        *,
        max_waiting: int,
        weight: int,
        keep: Sequence[Keep] | None,
        convert: Callable[[Rows], Rows] | None,
        on_ready: Callable[[TrackQueue], None],
        on_close: Callable[[TrackQueue], None],
    ) -> None:
        self._changed = threading.Condition(lock)
        self._max_waiting = max_waiting
        self._on_ready = on_ready
        self._on_close = on_close
        self._blocks: deque[Windows] = deque()
        self._n_waiting = 0
        self._n_unfinished = 0
        self._n_taken = 0
        self._outputs = OutputStore(keep)
        self._convert = convert
        self._failure: ServiceError | None = None
        self.weight = weight
        self.on_output: Callable[[int, Rows], None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self.fail(ServiceError(ErrorKind.CLIENT_GONE, "The track was closed."))
            self._on_close(self)

    def put(self, windows: Windows) -> None:
        """Add windows, blocking while too many of this track wait for a device.

        Args:
            windows: Normalised windows.

        Raises:
            ServiceError: If the track was abandoned or the device failed.
        """
        if not len(windows):
            return
        with self._changed:
            self._wait_until(lambda: self._failure is None and not self._is_full)
            self._blocks.append(windows)
            self._n_waiting += len(windows)
            self._n_unfinished += len(windows)
            self._on_ready(self)

    def finish(self) -> TrackOutputs | None:
        """Wait until all windows are classified.

        Returns:
            What is kept of the outputs, in the order of the windows; None if there were no windows.

        Raises:
            ServiceError: If the track was abandoned or the device failed.
        """
        with self._changed:
            self._wait_until(lambda: self._n_unfinished == 0)
            return self._outputs.collected()

    def wait_settled(self, timeout_s: float) -> None:
        """Wait until all windows are classified or the track has failed, for at most ``timeout_s`` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._failure is not None or self._n_unfinished == 0, timeout=timeout_s)

    def abandon(self, reason: ServiceError) -> None:
        """Discard the waiting windows and raise ``reason`` in the thread that waits. Any thread may call this."""
        with self._changed:
            self.fail(reason)

    @property
    def _is_full(self) -> bool:
        return self._n_waiting >= self._max_waiting

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition. A failure that arrives after the condition is met does not matter."""
        self._changed.wait_for(lambda: self._failure is not None or condition())
        if self._failure is not None and not condition():
            raise self._failure

    def converted(self, outputs: Rows) -> Rows:
        """Return the outputs of the model from those of the network. The engine calls this without the lock."""
        return self._convert(outputs) if self._convert else outputs

    # The rest is for the engine. The caller holds the lock.

    @property
    def n_waiting(self) -> int:
        """Number of windows that no worker has taken yet."""
        return self._n_waiting

    @property
    def failed(self) -> bool:
        """Whether the track has failed, so that its outputs are no longer needed."""
        return self._failure is not None

    def fail(self, reason: ServiceError) -> None:
        """Discard the waiting windows and raise ``reason`` in the thread that uses the queue."""
        self._failure = self._failure or reason
        self._blocks.clear()
        self._n_waiting = 0
        self._changed.notify_all()

    def take(self, max_windows: int) -> BatchSlice:
        """Remove and return the next windows: at most ``max_windows``, all from one block."""
        block = self._blocks.popleft()
        taken, remaining = block[:max_windows], block[max_windows:]
        if len(remaining):
            self._blocks.appendleft(remaining)
        position, self._n_taken = self._n_taken, self._n_taken + len(taken)
        was_full = self._is_full
        self._n_waiting -= len(taken)
        if was_full and not self._is_full:
            self._changed.notify_all()
        return BatchSlice(self, position, taken)

    def deliver(self, position: int, outputs: Rows) -> None:
        """Store the outputs for the windows that start at ``position``. Slices may be delivered in any order."""
        self._outputs.add(position, outputs)
        self._n_unfinished -= len(outputs)
        if self.on_output and self._failure is None:
            self.on_output(position, outputs)
        if not self._n_unfinished:
            self._changed.notify_all()
