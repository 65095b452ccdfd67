"""Decides which tracks may use a processor: as many at a time as there are slots, each for about the length of a song.

If a slot were held until the track is finished, a song that arrives during two long mixes would wait for one of them to
end. If it changed hands after every block, songs that arrive together would all finish at the same late time. The
decoder of a track that has no slot stops by itself, because its pipe is full.

Waiting tracks are ordered by virtual time, which advances by ``1 / weight`` with every slot that a track gets (stride
scheduling, Waldspurger and Weihl 1995): tracks of equal weight get slots in the order in which they ask for them, and a
track of weight four gets four slots for every slot of a track of weight one.
"""

from __future__ import annotations

import bisect
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from statistics import fmean
from types import TracebackType
from typing import Self

from wholetrack.cancellation import Cancellation
from wholetrack.decoding.limits import DecoderMemory
from wholetrack.errors import ServiceError

# Blocks of the decoder, of twelve seconds each at 22,050 Hz. The first slot of a track lasts for six minutes of audio,
# longer than most songs; later slots are shorter, because songs wait behind them.
_FIRST_BLOCKS, _LATER_BLOCKS = 30, 10
# A small hop makes blocks expensive: a hop of one frame gives twelve or more windows a second.
_MAX_SLOT_S = 3.0
_RECENT_SLOTS = 32


class StrideScheduler:
    """Grants a fixed number of slots in a weighted fair order.

    Args:
        n_slots: Number of slots.
        max_open: Number of tracks that may have started, and so hold a decoder, whether or not they have a slot at the
            moment, for each size of decoder. Further tracks wait for their first slot.
        first_blocks: Length of a track's first slot, in blocks, while other tracks wait.
        later_blocks: Length of each further slot.
    """

    def __init__(
        self,
        n_slots: int,
        *,
        max_open: Mapping[DecoderMemory, int],
        first_blocks: int = _FIRST_BLOCKS,
        later_blocks: int = _LATER_BLOCKS,
    ) -> None:
        self.first_blocks, self.later_blocks = first_blocks, later_blocks
        self._lock = threading.Lock()
        self._n_slots = self._n_free = n_slots
        self._n_idle = 0
        self._recent_s: deque[float] = deque(maxlen=_RECENT_SLOTS)
        self._n_startable = dict(max_open)
        self._waiting: list[Slot] = []
        self._virtual_time = 0.0

    def slot(
        self, cancellation: Cancellation, *, weight: int = 1, memory: DecoderMemory | None = DecoderMemory.ORDINARY
    ) -> Slot:
        """Return a context manager that waits for a slot when it is entered. One thread uses it, for one track.

        Args:
            cancellation: Ends the wait.
            weight: Number of slots for every slot of a track of weight 1, at least 1.
            memory: Size of the track's decoder; None for a track that has none.
        """
        return Slot(self, cancellation, weight, memory)

    def join(self, slot: Slot) -> None:
        """Queue a track that is new or idle, and grant it a slot at once if one is free."""
        with self._lock:
            if slot.is_idle:
                slot.is_idle = False
                self._n_idle -= 1
            self._enqueue(slot)
            self._grant()

    def requeue(self, slot: Slot) -> None:
        """Return a slot and queue its track for another one."""
        with self._lock:
            slot.granted.clear()
            self._release(slot)
            self._enqueue(slot)
            self._grant()

    def give_back(self, slot: Slot) -> None:
        """Return a slot, without a wish for another one."""
        with self._lock:
            slot.granted.clear()
            slot.is_idle = True
            self._n_idle += 1
            self._release(slot)
            self._grant()

    def leave(self, slot: Slot) -> None:
        """Remove a track, whether it has a slot, is waiting for one, or has given it back."""
        with self._lock:
            if slot in self._waiting:
                self._waiting.remove(slot)
            elif slot.is_idle:
                self._n_idle -= 1
            else:
                self._release(slot)
            if slot.started and slot.memory is not None:
                self._n_startable[slot.memory] += 1
            self._grant()

    @property
    def contended(self) -> bool:
        """Whether a track that could use a slot is waiting."""
        with self._lock:
            return self._next() is not None

    def expected_wait_s(self, n_tracks: int) -> float:
        """Return how long a track would wait for its first slot, in seconds, from how long recent slots lasted.

        Args:
            n_tracks: Number of tracks that have or need a slot, or are idle, without this one.
        """
        with self._lock:
            n_tracks -= self._n_idle
            if n_tracks < self._n_slots or not self._recent_s:
                return 0.0
            return (n_tracks - self._n_slots + 1) * fmean(self._recent_s) / self._n_slots

    def _release(self, slot: Slot) -> None:
        self._n_free += 1
        # Tracks without a decoder need slots for moments only, and many of them.
        if slot.memory is not None:
            self._recent_s.append(time.monotonic() - slot.granted_at)

    def _enqueue(self, slot: Slot) -> None:
        slot.due = self._virtual_time + 1 / slot.weight
        bisect.insort(self._waiting, slot, key=lambda waiting: waiting.due)

    def _next(self) -> Slot | None:
        """Return the first track in the queue that has started or may start."""
        return next((slot for slot in self._waiting if slot.started or self._may_start(slot)), None)

    def _may_start(self, slot: Slot) -> bool:
        return slot.memory is None or self._n_startable[slot.memory] > 0

    def _grant(self) -> None:
        while self._n_free and (slot := self._next()):
            self._waiting.remove(slot)
            self._virtual_time = max(self._virtual_time, slot.due)
            self._n_free -= 1
            if not slot.started:
                slot.started = True
                if slot.memory is not None:
                    self._n_startable[slot.memory] -= 1
            slot.granted_at = time.monotonic()
            slot.granted.set()


class Slot:
    """A track's permission to use a processor, while it is held.

    Attributes:
        weight: Number of slots for every slot of a track of weight 1.
        memory: Size of the track's decoder; None for a track that has none.
        due: Position in the queue, in virtual time.
        started: Whether the track has been granted a slot before.
        is_idle: Whether the slot was given back until there is something to do.
        waited_s: Total time spent waiting, in seconds.
        granted_at: When the scheduler granted the present slot, on the monotonic clock.
        granted: Set by the scheduler when the slot is granted.
    """

    def __init__(
        self, scheduler: StrideScheduler, cancellation: Cancellation, weight: int, memory: DecoderMemory | None
    ) -> None:
        self._scheduler = scheduler
        self._cancellation = cancellation
        self._blocks_left = scheduler.first_blocks
        self.weight = weight
        self.memory = memory
        self.due = 0.0
        self.started = False
        self.is_idle = False
        self.waited_s = 0.0
        self.granted_at = 0.0
        self.granted = threading.Event()

    def __enter__(self) -> Self:
        self._scheduler.join(self)
        try:
            self._wait()
        except ServiceError:
            self._scheduler.leave(self)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scheduler.leave(self)

    def yield_slot(self, *, stalled: bool = False) -> None:
        """Call after each block. If the slot has lasted long enough and other tracks wait, wait for the next slot.

        Args:
            stalled: Whether the decoder returned less than a block, so that other tracks may use the processor at once.

        Raises:
            ServiceError: The reason for the cancellation, if the track is cancelled meanwhile.
        """
        self._blocks_left -= 1
        expired = stalled or self._blocks_left <= 0 or time.monotonic() - self.granted_at > _MAX_SLOT_S
        if expired and self._scheduler.contended:
            if self._blocks_left <= 0:
                self._blocks_left = self._scheduler.later_blocks
            self._scheduler.requeue(self)
            self._wait()

    def idle(self, wait: Callable[[], None]) -> None:
        """Give the slot back while ``wait`` runs, and wait for the next slot afterwards.

        Raises:
            ServiceError: The reason for the cancellation, if the track is cancelled meanwhile.
        """
        self._scheduler.give_back(self)
        wait()
        self._blocks_left = self._scheduler.first_blocks
        self._scheduler.join(self)
        self._wait()

    def _wait(self) -> None:
        began = time.monotonic()
        with self._cancellation.calling(lambda _: self.granted.set()):
            self.granted.wait()
        self.waited_s += time.monotonic() - began
        self._cancellation.check()
