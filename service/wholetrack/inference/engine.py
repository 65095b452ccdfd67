"""Device threads, on one device or several, and the windows of all tracks in flight in shared batches.

    track threads                                        device threads
    put(windows) -> [ track A: w w w w w ]  round-robin
    put(windows) -> [ track B: w w       ]  ---------->  batch of windows -> session -> each track's answers
    put(windows) -> [ track C: w w w     ]

Each track waits in a queue of its own and every batch takes windows from all of them in turn, so a short song that
arrives during a long mix is not stuck behind it. A track that has much waiting is held up in :meth:`TrackQueue.put`,
which holds up its decoder: what is alive is bounded, however long the recording.

A batch that fails is taken apart until the track that spoils it is alone. A thread whose device answers nothing leaves
the windows to others until it does. A device thread that dies or hangs is given up: whose windows it had is told at
once, as is everybody where no other thread is left, and another takes its place.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.inference.counts import DeviceCounts, EngineCounts
from wholetrack.inference.queue import Probabilities, Taken, TrackQueue, Windows
from wholetrack.inference.worker import Classifier, Opening, Worker

_log = logging.getLogger(__name__)

# How often a device that failed is tried again while nobody asks.
_RETRY_S = 2.0
_CALM_RETRY_S = 20.0
# A driver that hangs may hang whoever opens it again, too.
_LONGEST_OPENING_S = 60.0
_LOOKS_PER_HANG = 4
_REPLACEMENTS = 3
# Each holds its session and its batch for as long as it hangs.
_MOST_HANGING_PER_THREAD = 4


class Engine:
    """Runs classifiers in threads of its own for all tracks in flight.

    Args:
        classifiers: proven, of one network and one size of batches: one for each thread, or the same for several.
        windows_waiting_per_track: how many windows of a track may wait before its decoder is held up.
        hang_s: a run that takes longer is given up, in seconds.
        reopen: a fresh classifier in place of one whose thread died or hung; None to go on with the same.
        despair: called when no thread is left and three replacements in a row were in vain, or when too many threads
            hang that were given up; None to go on.
    """

    def __init__(
        self,
        *classifiers: Classifier,
        windows_waiting_per_track: int = 256,
        hang_s: float = 60.0,
        reopen: Callable[[Classifier], Classifier] | None = None,
        despair: Callable[[], None] | None = None,
    ) -> None:
        devices = dict.fromkeys(classifier.device for classifier in classifiers)
        self.device = ",".join(devices)
        self.precision = classifiers[0].precision
        self.max_batch = classifiers[0].max_batch
        self._limit = windows_waiting_per_track
        self._hang_s = hang_s
        self._reopen = reopen
        self._despair = despair
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._alarm = threading.Condition(self._lock)
        self._ready: deque[TrackQueue] = deque()
        self._open: set[TrackQueue] = set()
        self._counts = {device: DeviceCounts() for device in devices}
        self._last_shape: tuple[int, ...] | None = None
        self._stopping = False
        self._in_vain = 0
        self._given_up: set[Worker] = set()
        self._openings: dict[Classifier, Opening] = {}
        self._workers = [Worker(classifier) for classifier in classifiers]
        for worker in self._workers:
            self._start(worker)
        self._watch = threading.Thread(target=self._supervise, name=f"watch-{self.device}", daemon=True)
        self._watch.start()

    @property
    def classifiers(self) -> list[Classifier]:
        """One for each thread, those in use now."""
        return [worker.classifier for worker in self._workers]

    @property
    def healthy(self) -> bool:
        """Whether there is a device thread to answer whose last run succeeded."""
        return any(worker.at_work and not worker.failing for worker in self._workers)

    @property
    def _at_work(self) -> bool:
        return any(worker.at_work for worker in self._workers)

    def counts(self) -> EngineCounts:
        """What it has done so far, and what waits."""
        with self._lock:
            sound = {worker.classifier.device for worker in self._workers if worker.at_work and not worker.failing}
            devices = {
                device: replace(counts, batches=counts.batches.copy(), healthy=device in sound)
                for device, counts in self._counts.items()
            }
            return EngineCounts(devices, sum(track.n_waiting for track in self._open), len(self._open))

    def open_track(self, *, weight: int = 1) -> TrackQueue:
        """A queue for the windows of one more track.

        Args:
            weight: its share of every batch, in proportion to those of the other tracks in flight; at least 1.

        Raises:
            ServiceError: ``device_failed`` if there is no device thread.
        """
        track = TrackQueue(
            self._lock, limit=self._limit, weight=weight, announce=self._announce, forget=self._open.discard
        )
        with self._lock:
            if self._stopping or not self._at_work:
                raise _device_failed()
            self._open.add(track)
        return track

    def close(self) -> None:
        """Answer what is waiting, then end the device threads."""
        with self._lock:
            self._stopping = True
            self._work.notify_all()
            self._alarm.notify()
        self._watch.join(self._hang_s)
        for worker in self._workers:
            if worker.thread:
                worker.thread.join(self._hang_s)

    def _announce(self, track: TrackQueue) -> None:
        """Put a track that has windows in the round, if it is not in it; the lock is held."""
        if track not in self._ready:
            self._ready.append(track)
        self._call()

    def _call(self) -> None:
        """Wake a thread for what is ready, or all where one of them may not take it; the lock is held."""
        self._work.notify(len(self._workers) if any(worker.failing for worker in self._workers) else 1)

    # The device threads.

    def _start(self, worker: Worker) -> None:
        name = f"engine-{worker.classifier.device}"
        worker.thread = threading.Thread(target=self._serve, args=(worker,), name=name, daemon=True)
        worker.thread.start()

    def _may_take(self, worker: Worker) -> bool:
        """Whether there are windows for a thread: where another is sound, there are none for one that fails."""
        return bool(self._ready) and not (worker.failing and self.healthy)

    def _serve(self, worker: Worker) -> None:
        # A new thread finds out at once whether the device works again.
        patience_s = 0.0
        try:
            while True:
                with self._lock:
                    self._work.wait_for(
                        lambda: self._may_take(worker) or self._stopping or worker.given_up.is_set(),
                        timeout=patience_s if worker.failing else None,
                    )
                    takes = self._may_take(worker)
                    if worker.given_up.is_set() or (self._stopping and not takes):
                        return
                    batch = worker.batch = self._next_batch() if takes else []
                    trial = worker.failing and not batch
                if batch or trial:
                    # Where nothing of a batch could be answered, silence tells whether the device or the track is ill.
                    answers = (bool(batch) and self._run(worker, batch)) or self._try_again(worker)
                    with self._lock:
                        worker.failing, worker.batch = not answers, []
                patience_s = _RETRY_S
        finally:
            # Whatever ended the loop, nobody may wait for an answer that will not come.
            with self._lock:
                worker.alive = False
                self._fail_those_of(worker)
                self._alarm.notify()

    def _next_batch(self) -> list[Taken]:
        """Windows of all waiting tracks in turn, a share for each by its weight, until the batch is full."""
        batch: list[Taken] = []
        room, now = self.max_batch, time.monotonic()
        while self._ready and room:
            share = max(1, room // sum(track.weight for track in self._ready))
            for _ in range(len(self._ready)):
                if not room:
                    break
                track = self._ready.popleft()
                if not track.n_waiting:
                    continue
                taken = track.take(min(share * track.weight, room), now)
                batch.append(taken)
                room -= len(taken.windows)
                if track.n_waiting:
                    self._ready.append(track)
        if self._ready:
            self._call()
        return batch

    def _run(self, worker: Worker, batch: list[Taken]) -> bool:
        """Classify a batch; if that fails, its halves, until what spoils it is alone with its track.

        Returns:
            Whether the device answered for any of it.
        """
        batch = [taken for taken in batch if not taken.track.failed]
        if not batch or worker.given_up.is_set():
            return False
        windows = np.concatenate([taken.windows for taken in batch])
        try:
            probabilities, seconds = self._classify(worker, windows)
        except Exception:  # noqa: BLE001 - the loop must outlive any failure of a run; the tracks concerned are told
            _log.exception("a batch of %d windows failed on %s", len(windows), worker.classifier.device)
            if len(windows) > 1:
                answered = [self._run(worker, half) for half in _halves(batch)]
                return any(answered)
            with self._lock:
                batch[0].track.fail(_device_failed())
            return False
        with self._lock:
            if worker.given_up.is_set():
                return False
            self._counts[worker.classifier.device].batches[len(windows)] += 1
            self._in_vain = 0
            begin = 0
            for taken in batch:
                end = begin + len(taken.windows)
                taken.track.answer(taken.position, probabilities[begin:end], seconds * (end - begin) / len(windows))
                begin = end
        return True

    def _try_again(self, worker: Worker) -> bool:
        """See whether a device that failed works again, without waiting for a track to lose by it."""
        if self._last_shape is None or worker.given_up.is_set():
            return not worker.given_up.is_set()
        try:
            self._classify(worker, np.zeros((1, *self._last_shape), dtype=np.float32))
        except Exception as error:  # noqa: BLE001 - as above
            _log.warning("%s still fails: %s", worker.classifier.device, error)
            return False
        if worker.failing:
            _log.info("%s works again", worker.classifier.device)
        return True

    def _classify(self, worker: Worker, windows: Windows) -> tuple[Probabilities, float]:
        """Answers and seconds of one run, under the eyes of the supervisor."""
        self._last_shape = windows.shape[1:]
        counts = self._counts[worker.classifier.device]
        worker.excused_s = 0.0
        began = worker.busy_since = time.monotonic()
        try:
            probabilities = worker.run(windows)
        except Exception:
            with self._lock:
                counts.failures += 1
            raise
        finally:
            seconds = time.monotonic() - began
            worker.busy_since = None
            with self._lock:
                counts.busy_s += seconds
                counts.memory = worker.classifier.memory
        return probabilities, seconds

    # The supervisor's thread.

    def _supervise(self) -> None:
        """Give up device threads that died or hang, and put others in their place."""
        look_s = self._hang_s / _LOOKS_PER_HANG
        with self._alarm:
            while not self._stopping:
                if troubled := [worker for worker in self._workers if self._is_troubled(worker)]:
                    self._replace(troubled)
                    continue
                began = time.monotonic()
                self._alarm.wait(look_s)
                overslept_s = time.monotonic() - began - look_s
                if overslept_s > look_s:
                    # The whole process stood still, as a paused container does: no run hung meanwhile.
                    for worker in self._workers:
                        worker.excused_s += overslept_s

    def _is_troubled(self, worker: Worker) -> bool:
        busy_since = worker.busy_since
        hangs = busy_since is not None and time.monotonic() - busy_since > self._hang_s + worker.excused_s
        return hangs or not worker.alive

    def _replace(self, troubled: list[Worker]) -> None:
        """Tell whoever waits, then start anew; the lock is held, but not while classifiers are opened."""
        for worker in troubled:
            worker.given_up.set()
            self._fail_those_of(worker)
        self._work.notify_all()
        self._in_vain += 1
        dead = [worker for worker in troubled if not worker.alive]
        _log.critical(
            "of the threads of %s, %d died and %d have hung for %g s; they are replaced",
            self.device,
            len(dead),
            len(troubled) - len(dead),
            self._hang_s,
        )
        self._given_up = {worker for worker in self._given_up.union(troubled) if worker.alive}
        too_many = len(self._given_up) > _MOST_HANGING_PER_THREAD * len(self._workers)
        if self._despair and ((self._in_vain > _REPLACEMENTS and not self._at_work) or too_many):
            _log.critical(
                "%s was replaced %d times in vain, %d of its threads hang",
                self.device,
                self._in_vain - 1,
                len(self._given_up),
            )
            self._despair()
        self._lock.release()
        try:
            for worker in dead:
                if worker.thread:
                    worker.thread.join()
            # Threads that shared a classifier share the next one.
            fresh = {old: self._opened_again(old) for old in dict.fromkeys(worker.classifier for worker in troubled)}
        finally:
            self._lock.acquire()
        hired = {worker: self._successor(worker, fresh[worker.classifier]) for worker in troubled}
        self._workers = [hired.get(worker, worker) for worker in self._workers]
        if None in fresh.values() or self._in_vain > _REPLACEMENTS:
            # Where others answer there is no hurry.
            self._alarm.wait_for(lambda: self._stopping, _CALM_RETRY_S if self._at_work else _RETRY_S)

    def _successor(self, worker: Worker, classifier: Classifier | None) -> Worker:
        """A thread in place of one; the same where there is no classifier for another, or no need of one any more."""
        if classifier is None or self._stopping:
            return worker
        self._counts[worker.classifier.device].replacements += 1
        # It counts as failing until it has answered.
        successor = Worker(classifier, failing=True)
        self._start(successor)
        return successor

    def _opened_again(self, old: Classifier) -> Classifier | None:
        """A fresh classifier; None where it cannot be opened, or not for so long."""
        reopen = self._reopen
        if reopen is None:
            return old
        opening, patience_s = self._openings.get(old), _RETRY_S
        if opening is None:
            opening, patience_s = Opening(reopen, old), _LONGEST_OPENING_S
        opening.join(patience_s)
        if opening.is_alive():
            # As long as it hangs, another would hang as well.
            self._openings[old] = opening
            _log.critical("opening %s again hangs", old.device)
        else:
            self._openings.pop(old, None)
        return opening.found

    def _fail_those_of(self, worker: Worker) -> None:
        """Nobody waits for an answer that will not come from a thread; the lock is held."""
        lost = {taken.track for taken in worker.batch}
        for track in lost if self._at_work else tuple(self._open):
            track.fail(_device_failed())
        worker.batch = []
        if not self._at_work:
            self._ready.clear()


def _halves(batch: list[Taken]) -> tuple[list[Taken], list[Taken]]:
    """A batch of several tracks by tracks, of one track by its windows."""
    if len(batch) > 1:
        middle = len(batch) // 2
        return batch[:middle], batch[middle:]
    earlier, later = batch[0].halves()
    return [earlier], [later]


def _device_failed() -> ServiceError:
    return ServiceError(ErrorKind.DEVICE_FAILED, "The inference device failed; try again in a moment.", retry_after_s=5)
