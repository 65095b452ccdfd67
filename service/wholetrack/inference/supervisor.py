"""Watches the workers of an engine and restarts those that hang, die or always raise.

The policy is the same for all of them. A worker is restarted once, with a reopened session. If that fails, or if the
new worker fails before it has classified a batch, its device is given up. An engine that has another device continues
without it. Otherwise the engine is unrecoverable, and the caller decides what to do, usually to end the process. After
a lost CUDA context no worker is restarted, because a new process is needed. A network that runs elsewhere and cannot be
reached is never given up, because others restart it: its tracks fail, and it is tried again.

Restarting inside the process is worth the code: only the tracks whose windows were in the failed batch are lost,
whereas ending the process would abort every request in flight and take seconds to load the models again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from wholetrack.inference.batching import BatchQueue
from wholetrack.inference.counts import DeviceCounts
from wholetrack.inference.worker import Classifier, Failure, Worker, device_failed

_log = logging.getLogger(__name__)

Reopen = Callable[[Classifier], Classifier]

# How often per time limit the supervisor checks for workers that hang.
_CHECKS_PER_LIMIT = 4
# Restarts without a successful batch in between.
_MAX_RESTARTS = 1
# A driver that hangs may also hang while a session is opened.
_REOPEN_TIMEOUT_S = 60.0


class Supervisor:
    """Owns the workers of an engine.

    Args:
        classifiers: One for each worker; the same one several times if they share it.
        batches: Where the workers take batches from.
        counts: Counters by device.
        run_timeout_s: Time limit of a run, in seconds.
        reopen: Reopens a session on its device; None to keep using the same session.
        on_unrecoverable: Called once, in the supervisor's thread, when no device is left.
        clock: Monotonic time in seconds.
    """

    def __init__(
        self,
        classifiers: Sequence[Classifier],
        batches: BatchQueue,
        counts: dict[str, DeviceCounts],
        *,
        run_timeout_s: float,
        reopen: Reopen | None,
        on_unrecoverable: Callable[[Failure], None],
        clock: Callable[[], float],
    ) -> None:
        self._batches = batches
        self._counts = counts
        self._run_timeout_s = run_timeout_s
        self._reopen = reopen
        self._on_unrecoverable = on_unrecoverable
        self._clock = clock
        self._wake = threading.Event()
        self._stopping = False
        self._hung: list[Worker] = []
        # Each hung thread holds a session and a batch for as long as it hangs.
        self._max_hung = len(classifiers)
        self.workers = [self._worker(classifier) for classifier in classifiers]
        self._thread = threading.Thread(target=self._main, name="engine-supervisor", daemon=True)
        for worker in self.workers:
            worker.start()
        self._thread.start()

    def stop(self) -> None:
        """Stop supervising, and wait for the workers to finish the batches that are left."""
        self._stopping = True
        self._wake.set()
        self._thread.join(self._run_timeout_s)
        for worker in self.workers:
            worker.join(self._run_timeout_s)

    def _worker(self, classifier: Classifier, *, failed_restarts: int = 0) -> Worker:
        return Worker(
            classifier,
            self._batches,
            self._counts[classifier.device],
            on_end=self._wake.set,
            clock=self._clock,
            failed_restarts=failed_restarts,
        )

    def _main(self) -> None:
        interval_s = self._run_timeout_s / _CHECKS_PER_LIMIT
        while not self._stopping:
            began = self._clock()
            woken = self._wake.wait(interval_s)
            self._wake.clear()
            now = self._clock()
            overslept_s = now - began - interval_s
            if not woken and overslept_s > interval_s:
                # The whole process was suspended, for example in a paused container, so no run has hung.
                for worker in self.workers:
                    worker.excuse(overslept_s)
            if not self._stopping and (failures := self._failures(now)):
                self._handle(failures)

    def _failures(self, now: float) -> dict[Worker, Failure]:
        """Return the workers that cannot continue, and why."""
        with self._batches.lock:
            hung = {worker: Failure.HUNG for worker in self.workers if worker.is_hung(now, self._run_timeout_s)}
            return hung | {worker: worker.failure for worker in self.workers if worker.failure}

    def _handle(self, failures: dict[Worker, Failure]) -> None:
        self._abandon(failures)
        restarted = self._restarted(self._restartable(failures))
        if self._stopping:
            return
        self.workers = [
            restarted.get(worker, worker) for worker in self.workers if worker in restarted or worker not in failures
        ]
        for worker, failure in failures.items():
            if worker not in restarted and not self._can_go_on_without(worker, failure):
                _log.critical("%s is unrecoverable: %s", worker.classifier.device, failure)
                self._stopping = True
                self._on_unrecoverable(failure)
                return
        with self._batches.lock:
            self._batches.accept()
        for worker in restarted.values():
            worker.start()

    def _abandon(self, failures: dict[Worker, Failure]) -> None:
        """Fail the tracks that lost windows, and all tracks if no other worker is left."""
        with self._batches.lock:
            for worker, failure in failures.items():
                _log.critical("a worker on %s failed: %s", worker.classifier.device, failure)
                self._counts[worker.classifier.device].replacements += 1
                worker.abandoned, worker.healthy = True, False
                for part in worker.batch:
                    part.track.fail(device_failed())
                worker.batch = []
            if all(worker in failures for worker in self.workers):
                self._batches.refuse(device_failed())

    def _restartable(self, failures: dict[Worker, Failure]) -> list[Worker]:
        hung = [worker for worker, failure in failures.items() if failure is Failure.HUNG]
        self._hung = [worker for worker in self._hung if worker.alive] + hung
        return [
            worker
            for worker, failure in failures.items()
            if failure is Failure.UNREACHABLE
            or (
                failure is not Failure.CUDA_CONTEXT_LOST
                and worker.failed_restarts < _MAX_RESTARTS
                and len(self._hung) <= self._max_hung
            )
        ]

    def _restarted(self, workers: list[Worker]) -> dict[Worker, Worker]:
        """Return a new worker for each of the given ones whose session can be reopened."""
        # Workers that shared a session share the new one.
        reopened = {old: self._reopened(old) for old in dict.fromkeys(worker.classifier for worker in workers)}
        return {
            worker: self._worker(fresh, failed_restarts=worker.failed_restarts + 1)
            for worker in workers
            if (fresh := reopened[worker.classifier]) is not None
        }

    def _reopened(self, old: Classifier) -> Classifier | None:
        if self._reopen is None:
            return old
        reopening = SessionReopen(self._reopen, old)
        reopening.join(_REOPEN_TIMEOUT_S)
        if reopening.is_alive():
            _log.critical("opening a session on %s hangs", old.device)
        return reopening.session

    def _can_go_on_without(self, worker: Worker, failure: Failure) -> bool:
        if failure is Failure.CUDA_CONTEXT_LOST:
            return False
        return any(other.classifier.device != worker.classifier.device for other in self.workers)


class SessionReopen(threading.Thread):
    """Reopens a session in a thread of its own, which may hang without blocking the supervisor.

    Attributes:
        session: The new session once the thread has ended; None if it could not be opened.
    """

    def __init__(self, reopen: Reopen, old: Classifier) -> None:
        super().__init__(name=f"reopen-{old.device}", daemon=True)
        self._reopen, self._old = reopen, old
        self.session: Classifier | None = None
        self.start()

    def run(self) -> None:
        """Open the session."""
        try:
            self.session = self._reopen(self._old)
        except Exception:  # noqa: BLE001 - a driver may raise anything
            _log.exception("a session on %s cannot be reopened", self._old.device)
