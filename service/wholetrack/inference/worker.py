"""A thread that takes batches, runs a classifier on them, and delivers the outputs to the tracks.

A batch that raises an error is bisected until the track that causes the error is isolated. If no part of a batch
succeeds, the worker runs a silent window. If that raises an error as well, the device is at fault and not a track, and
the worker stops.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

import numpy as np

from wholetrack.contracts import Rows, Windows, joined_windows
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.inference.batching import BatchQueue, halve
from wholetrack.inference.counts import DeviceCounts
from wholetrack.inference.gpu_memory import GpuMemory
from wholetrack.inference.queue import BatchSlice

_log = logging.getLogger(__name__)

# cudaErrorIllegalAddress (700) to cudaErrorLaunchFailure (719) leave the CUDA context in an inconsistent state: every
# later call fails, and the process must be restarted (CUDA Runtime API, cudaError_t).
_CUDA_CONTEXT_LOST = re.compile(r"CUDA (?:failure|error) 7[01]\d\b")


class Classifier(Protocol):
    """What a worker requires of a session. Several workers may share one and call it at the same time."""

    max_batch: int
    device: str
    precision: str
    window_shapes: tuple[tuple[int, ...], ...]
    output_shapes: tuple[tuple[int, ...], ...]

    @property
    def memory(self) -> GpuMemory | None:
        """Memory of the GPU after the last run; None on a CPU."""

    def run(self, windows: Windows) -> Rows:
        """Classify up to ``max_batch`` normalised windows of ``window_shapes`` into outputs of ``output_shapes``."""


class UnreachableError(Exception):
    """A network that runs elsewhere cannot be reached. The windows are not at fault, and it may come back."""


class Failure(StrEnum):
    """Why a worker cannot continue."""

    UNREACHABLE = "the network cannot be reached"
    HUNG = "a run exceeded its time limit"
    DIED = "the thread ended"
    ALWAYS_RAISES = "every run raises an error"
    CUDA_CONTEXT_LOST = "the CUDA context is lost"


class Worker:
    """Runs one classifier in a thread of its own.

    The attributes are guarded by the lock of the batch queue.

    Args:
        classifier: What to run.
        batches: Where to take batches from.
        counts: Counters of the classifier's device.
        on_end: Called, without the lock, when the thread ends for any reason.
        clock: Monotonic time in seconds.
        failed_restarts: Number of restarts that led to this worker since the last batch that succeeded. A restarted
            worker classifies a silent window before it takes any batch.

    Attributes:
        batch: Slices that were taken and are not delivered yet.
        failure: Why the worker cannot continue, if it has noticed that itself.
        healthy: Whether the worker runs and its last run succeeded.
        abandoned: Set by the supervisor; the outputs of an abandoned worker are ignored.
    """

    def __init__(
        self,
        classifier: Classifier,
        batches: BatchQueue,
        counts: DeviceCounts,
        *,
        on_end: Callable[[], None],
        clock: Callable[[], float],
        failed_restarts: int = 0,
    ) -> None:
        self.classifier = classifier
        self.failed_restarts = failed_restarts
        self.batch: list[BatchSlice] = []
        self.failure: Failure | None = None
        self.healthy = failed_restarts == 0
        self.abandoned = False
        self._batches = batches
        self._counts = counts
        self._on_end = on_end
        self._clock = clock
        self._run_started: float | None = None
        self._excused_s = 0.0
        self._context_lost = False
        # A daemon, because a thread that hangs in a driver must not keep the process from exiting.
        self._thread = threading.Thread(target=self._main, name=f"engine-{classifier.device}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def join(self, timeout_s: float | None = None) -> None:
        """Wait for the thread to end."""
        self._thread.join(timeout_s)

    @property
    def alive(self) -> bool:
        """Whether the thread has not ended."""
        return self._thread.is_alive()

    def is_hung(self, now: float, limit_s: float) -> bool:
        """Return whether the current run has taken longer than ``limit_s`` at the time ``now``."""
        started = self._run_started
        return started is not None and now - started > limit_s + self._excused_s

    def excuse(self, seconds: float) -> None:
        """Extend the time limit of the current run, because the whole process was suspended for that long."""
        self._excused_s += seconds

    def _main(self) -> None:
        failure: Failure | None = Failure.DIED
        try:
            failure = self._work()
        finally:
            with self._batches.lock:
                self.failure, self.healthy = failure, False
            self._on_end()

    def _work(self) -> Failure | None:
        """Classify batches until the queue is closed.

        Returns:
            Why the device can no longer be used; None if the queue was closed.
        """
        try:
            return self._work_while_reachable()
        except UnreachableError as error:
            _log.error("%s cannot be reached: %s", self.classifier.device, error)
            return Failure.UNREACHABLE

    def _work_while_reachable(self) -> Failure | None:
        if self.failed_restarts and (failure := self._probe()):
            return failure
        with self._batches.lock:
            self.healthy = True
        while batch := self._take():
            is_needed = not all(part.track.failed for part in batch)
            if is_needed and not self._classify(batch) and (failure := self._probe()):
                return failure
            # The windows may be shared memory, of which nothing should remain while the worker waits for more.
            del batch
            with self._batches.lock:
                self.batch = []
        return None

    def _take(self) -> list[BatchSlice]:
        with self._batches.lock:
            self.batch = self._batches.wait_for_batch(self.classifier.max_batch, stopped=lambda: self.abandoned)
            return self.batch

    def _classify(self, batch: list[BatchSlice]) -> bool:
        """Classify a batch. If that raises, classify its halves, down to single windows.

        Returns:
            Whether any part of it succeeded.
        """
        batch = [part for part in batch if not part.track.failed]
        if not batch or self.abandoned:
            return False
        windows = joined_windows([part.windows for part in batch])
        try:
            outputs = self._run(windows)
        except UnreachableError:
            raise
        except Exception as error:  # noqa: BLE001 - a driver may raise anything; the tracks of the batch are told
            _log.exception("a batch of %d windows failed on %s", len(windows), self.classifier.device)
            if self._has_lost_context(error):
                return False
            if len(windows) > 1:
                succeeded = [self._classify(half) for half in halve(batch)]
                return any(succeeded)
            with self._batches.lock:
                batch[0].track.fail(device_failed())
            return False
        self._deliver(batch, outputs)
        return True

    def _deliver(self, batch: list[BatchSlice], outputs: Rows) -> None:
        found, begin = [], 0
        for part in batch:
            end = begin + len(part.windows)
            # A track may keep its rows until it ends. A view would keep the outputs of the whole batch.
            found.append(self._converted(part, outputs[begin:end].copy()))
            begin = end
        with self._batches.lock:
            if self.abandoned:
                return
            self._counts.batches[len(outputs)] += 1
            self.failed_restarts = 0
            for part, own in zip(batch, found, strict=True):
                if own is None:
                    part.track.fail(device_failed())
                else:
                    part.track.deliver(part.position, own)

    @staticmethod
    def _converted(part: BatchSlice, outputs: Rows) -> Rows | None:
        """Return the outputs of the track's model; None if it cannot compute them, which concerns no other track."""
        try:
            return part.track.converted(outputs)
        except Exception:  # noqa: BLE001 - the track is told
            _log.exception("the outputs of %d windows cannot be converted", len(outputs))
            return None

    def _probe(self) -> Failure | None:
        """Classify a silent window, to tell a broken device from a track that it cannot process."""
        if self.abandoned:
            return None
        if self._context_lost:
            return Failure.CUDA_CONTEXT_LOST
        try:
            self._run(Rows.zeros(1, self.classifier.window_shapes))
        except UnreachableError:
            raise
        except Exception as error:  # noqa: BLE001 - a driver may raise anything
            _log.error("%s cannot classify a silent window: %s", self.classifier.device, error)
            return Failure.CUDA_CONTEXT_LOST if self._has_lost_context(error) else Failure.ALWAYS_RAISES
        return None

    def _has_lost_context(self, error: Exception) -> bool:
        self._context_lost = self._context_lost or has_lost_context(error)
        return self._context_lost

    def _run(self, windows: Windows) -> Rows:
        """Run the classifier within the time limit that the supervisor watches.

        Raises:
            ValueError: If the outputs do not have the promised shape or are not finite.
        """
        self._excused_s = 0.0
        began = self._run_started = self._clock()
        try:
            outputs = _checked(self.classifier.run(windows), len(windows), self.classifier.output_shapes)
        except Exception:
            with self._batches.lock:
                self._counts.failures += 1
            raise
        finally:
            seconds = self._clock() - began
            self._run_started = None
            with self._batches.lock:
                self._counts.busy_s += seconds
                self._counts.memory = self.classifier.memory
        return outputs


def has_lost_context(error: Exception) -> bool:
    """Return whether an error of a run says that the CUDA context of the process can no longer be used."""
    return _CUDA_CONTEXT_LOST.search(str(error)) is not None


def device_failed() -> ServiceError:
    """Return the error for a track whose windows were lost with a device."""
    return ServiceError(ErrorKind.DEVICE_FAILED, "The inference device failed. Try again in a moment.", retry_after_s=5)


def _checked(outputs: Rows, n_windows: int, shapes: tuple[tuple[int, ...], ...]) -> Rows:
    # A wrong number of rows would give tracks the outputs of others.
    expected, found = [(n_windows, *shape) for shape in shapes], [array.shape for array in outputs.arrays]
    if found != expected:
        raise ValueError(f"expected outputs of the shapes {expected}, got {found}")
    if not all(np.isfinite(array).all() for array in outputs.arrays):
        raise ValueError("the outputs are not finite")
    return outputs
