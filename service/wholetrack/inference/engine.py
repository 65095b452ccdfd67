"""The inference engine of one model: workers on one or several devices share the windows of all open tracks.

    track threads                                     workers, one thread each
    put(windows) -> [ track A: w w w w w ]
    put(windows) -> [ track B: w w       ]  -->  batch of windows -> session -> outputs of each track
    put(windows) -> [ track C: w w w     ]

:mod:`.queue` holds the windows of one track, :mod:`.batching` makes batches of them, :mod:`.worker` runs a session on
the batches, and :mod:`.supervisor` restarts workers that fail. A track whose queue is full blocks in
:meth:`TrackQueue.put`, which in turn stops its decoder: memory is bounded, however long the recording is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from wholetrack.contracts import Rows
from wholetrack.inference.batching import BatchQueue
from wholetrack.inference.counts import DeviceCounts, EngineCounts
from wholetrack.inference.outputs import Keep
from wholetrack.inference.queue import TrackQueue
from wholetrack.inference.supervisor import Reopen, Supervisor
from wholetrack.inference.unavailable import model_unavailable
from wholetrack.inference.worker import Classifier, Failure, device_failed

# The largest batch on a GPU.
_MAX_WAITING_WINDOWS = 256
# A window of one input of 39 frames and 128 bands takes 20 KB, with a second one of 288 frames and 112 bands 149 KB.
_MAX_WAITING_BYTES = 8 << 20
# The largest batch on a CPU, so that a single track can fill it.
_MIN_WAITING_WINDOWS = 16


class Engine:
    """Classifies the windows of all open tracks in shared batches.

    Args:
        classifiers: Sessions of one network that passed their self-test, one for each worker; the same one may be given
            several times.
        max_waiting_per_track: Number of windows of a track that may wait before its decoder is blocked; None for as
            many as take a few megabytes.
        min_share: Number of windows that a batch takes at least from a track; see :class:`BatchQueue`.
        run_timeout_s: Time in seconds after which a run counts as hung.
        reopen: Opens a new session in place of a failed one; None to restart workers with the same session.
        on_unrecoverable: Called when no device can be used any longer, after the engine has become unavailable.
        clock: Monotonic time in seconds.

    Attributes:
        device: Names of all devices, separated by commas.
        precision: Number format of the network.
        max_batch: Largest number of windows in a batch.
        min_share: Number of windows that a batch takes at least from a track.
        unavailable_reason: Why the engine is unrecoverable, as a clause; None while it is not.
    """

    def __init__(
        self,
        *classifiers: Classifier,
        max_waiting_per_track: int | None = None,
        min_share: int = 1,
        run_timeout_s: float = 60.0,
        reopen: Reopen | None = None,
        on_unrecoverable: Callable[[Failure], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._counts = {classifier.device: DeviceCounts() for classifier in classifiers}
        self.device = ",".join(self._counts)
        self.precision = classifiers[0].precision
        self.max_batch = max(classifier.max_batch for classifier in classifiers)
        self.min_share = min_share
        self.unavailable_reason: str | None = None
        self._on_unrecoverable = on_unrecoverable
        max_waiting = max_waiting_per_track or max_waiting_windows(classifiers[0].window_shapes)
        self._batches = BatchQueue(max_waiting_per_track=max_waiting, min_share=min_share)
        self._supervisor = Supervisor(
            classifiers,
            self._batches,
            self._counts,
            run_timeout_s=run_timeout_s,
            reopen=reopen,
            on_unrecoverable=self._become_unavailable,
            clock=clock,
        )

    @property
    def classifiers(self) -> list[Classifier]:
        """The sessions in use, one for each worker."""
        return [worker.classifier for worker in self._supervisor.workers]

    @property
    def available(self) -> bool:
        """False once the engine is unrecoverable."""
        return self.unavailable_reason is None

    @property
    def healthy(self) -> bool:
        """Whether there is a worker whose last run succeeded."""
        return any(worker.healthy for worker in self._supervisor.workers)

    def counts(self) -> EngineCounts:
        """Return a snapshot of what the engine has done, and of what is waiting."""
        with self._batches.lock:
            healthy = {worker.classifier.device for worker in self._supervisor.workers if worker.healthy}
            devices = {
                device: replace(counts, batches=counts.batches.copy(), healthy=device in healthy)
                for device, counts in self._counts.items()
            }
            return EngineCounts(devices, waiting=self._batches.n_waiting, tracks=self._batches.n_tracks)

    def open_track(
        self,
        *,
        weight: int = 1,
        keep: Sequence[Keep] | None = None,
        convert: Callable[[Rows], Rows] | None = None,
    ) -> TrackQueue:
        """Open a queue for the windows of one more track.

        Args:
            weight: Share of every batch relative to the other open tracks, at least 1.
            keep: What to keep of each output; None to keep the rows of all.
            convert: Applied to what the network returns, before it is kept; None for no change. It returns as many
                arrays with as many rows.

        Raises:
            ServiceError: ``device_failed`` while no worker is running, ``model_unavailable`` if none can run again.
        """
        return self._batches.open_track(weight=weight, keep=keep, convert=convert)

    def close(self) -> None:
        """Classify what is waiting, then end the workers."""
        with self._batches.lock:
            self._batches.close(device_failed())
        self._supervisor.stop()
        with self._batches.lock:
            self._batches.refuse(device_failed())

    def _become_unavailable(self, failure: Failure) -> None:
        self.unavailable_reason = str(failure)
        with self._batches.lock:
            self._batches.refuse(model_unavailable(str(failure)))
        self._on_unrecoverable(failure)


def max_waiting_windows(window_shapes: Sequence[tuple[int, ...]]) -> int:
    """Return how many windows of these inputs may wait per track."""
    n_bytes = 4 * sum(math.prod(shape) for shape in window_shapes)
    return max(_MIN_WAITING_WINDOWS, min(_MAX_WAITING_WINDOWS, _MAX_WAITING_BYTES // n_bytes))
