"""Which tracks are worked on: as many at a time as there are processors, each for about a song while others wait.

Without turns a song that arrives during two long mixes would wait until one of them has ended. With turns of a block
each, songs that arrive together would all be answered when the last of them is. A decoder whose track has no turn
stands still, its pipe being full.

The line is ordered by virtual time, which every turn moves on by one over its weight (stride scheduling, Waldspurger
and Weihl 1995): tracks of one weight take turns in the order in which they ask, one of weight four has four for theirs.
"""

from __future__ import annotations

import bisect
import threading
import time
from types import TracebackType
from typing import Self

from wholetrack.cancellation import Cancellation
from wholetrack.errors import ServiceError

# Of a decoder: twelve seconds each at 22,050 Hz. A track's first turn lasts six minutes, longer than most songs; what
# goes on after that has shorter ones, for songs wait behind it.
_FIRST_BLOCKS, _LATER_BLOCKS = 30, 10
# By how many windows a block makes, a turn would last any time: a hop of one frame makes twelve or more a second.
_LONGEST_S = 3.0


class Turns:
    """So many turns, handed on in the order in which they are due.

    Args:
        most: at a time.
        first: how many blocks the first turn of a track lasts while others wait.
        later: how many each further one lasts.
    """

    def __init__(self, most: int, *, first: int = _FIRST_BLOCKS, later: int = _LATER_BLOCKS) -> None:
        self.first, self.later = first, later
        self._lock = threading.Lock()
        self._free = most
        self._line: list[Turn] = []
        self._now = 0.0

    def take(self, cancellation: Cancellation, *, weight: int = 1) -> Turn:
        """A place in the line, for one track in one thread; a context manager that waits for its turn.

        Args:
            cancellation: ends the waiting.
            weight: how many turns it has for one of a track of weight 1; at least 1.
        """
        return Turn(self, cancellation, weight)

    def join(self, turn: Turn) -> None:
        """Grant a turn at once if nobody waits, else let it wait in the line."""
        with self._lock:
            self._line_up(turn)
            if self._free:
                self._free -= 1
                self._grant_next()

    def renew(self, turn: Turn) -> None:
        """Let who has a turn wait in the line for another, and grant that turn to who is due."""
        with self._lock:
            turn.granted.clear()
            self._line_up(turn)
            self._grant_next()

    def leave(self, turn: Turn) -> None:
        """Give the turn to the next in line, or leave the line."""
        with self._lock:
            if turn in self._line:
                self._line.remove(turn)
            elif self._line:
                self._grant_next()
            else:
                self._free += 1

    def _line_up(self, turn: Turn) -> None:
        turn.due = self._now + 1 / turn.weight
        bisect.insort(self._line, turn, key=lambda waiting: waiting.due)

    def _grant_next(self) -> None:
        turn = self._line.pop(0)
        self._now = max(self._now, turn.due)
        turn.granted.set()

    @property
    def asked_for(self) -> bool:
        """Whether somebody waits for a turn."""
        return bool(self._line)


class Turn:
    """The right to be worked on, while it is held.

    Attributes:
        weight: how many it has for one of a track of weight 1.
        due: when it is its turn, in virtual time.
        waited_s: how long it was waited for, in seconds.
        granted: set by :class:`Turns` when it has come.
    """

    def __init__(self, turns: Turns, cancellation: Cancellation, weight: int) -> None:
        self._turns = turns
        self._cancellation = cancellation
        self._left = turns.first
        self._began = 0.0
        self.weight = weight
        self.due = 0.0
        self.waited_s = 0.0
        self.granted = threading.Event()

    def __enter__(self) -> Self:
        self._turns.join(self)
        try:
            self._wait()
        except ServiceError:
            self._turns.leave(self)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._turns.leave(self)

    def pass_on(self, *, stalled: bool = False) -> None:
        """After each block: when the turn has lasted long enough and others wait, let them, and wait for the next.

        Args:
            stalled: there was nothing to work on: others need not wait any longer.

        Raises:
            ServiceError: the reason of the cancellation, if it comes first.
        """
        self._left -= 1
        over = stalled or self._left <= 0 or time.monotonic() - self._began > _LONGEST_S
        if over and self._turns.asked_for:
            if self._left <= 0:
                self._left = self._turns.later
            self._turns.renew(self)
            self._wait()

    def _wait(self) -> None:
        began = time.monotonic()
        with self._cancellation.calling(lambda _: self.granted.set()):
            self.granted.wait()
        self._began = time.monotonic()
        self.waited_s += self._began - began
        self._cancellation.check()
