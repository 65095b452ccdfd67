"""Who may decode: as many tracks at a time as there are processors, each for a block or a few while others wait.

Without turns a song that arrives during two long mixes would wait until one of them has ended. A decoder whose track
has no turn stands still, its pipe being full.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from types import TracebackType
from typing import Self

from service.cancellation import Cancellation
from service.errors import ServiceError


class Turns:
    """So many turns, handed on in the order in which they were asked for."""

    def __init__(self, most: int) -> None:
        self._lock = threading.Lock()
        self._free = most
        self._line: deque[Turn] = deque()

    def take(self, cancellation: Cancellation, *, weight: int = 1) -> Turn:
        """A place in the line, for one track in one thread; a context manager that waits for its turn.

        Args:
            cancellation: ends the waiting.
            weight: how many blocks a turn lasts; at least 1.
        """
        return Turn(self, cancellation, weight)

    def join(self, turn: Turn) -> None:
        """Grant a turn at once if nobody is before it, else let it wait in the line."""
        with self._lock:
            if self._free and not self._line:
                self._free -= 1
                turn.granted.set()
            else:
                self._line.append(turn)

    def leave(self, turn: Turn) -> None:
        """Give the turn to the next in line, or leave the line."""
        with self._lock:
            if turn in self._line:
                self._line.remove(turn)
            elif self._line:
                self._line.popleft().granted.set()
            else:
                self._free += 1

    @property
    def asked_for(self) -> bool:
        """Whether somebody waits for a turn."""
        return bool(self._line)


class Turn:
    """The right to decode, while it is held.

    Attributes:
        waited_s: how long it was waited for, in seconds.
        granted: set by :class:`Turns` when it has come.
    """

    def __init__(self, turns: Turns, cancellation: Cancellation, weight: int) -> None:
        self._turns = turns
        self._cancellation = cancellation
        self._weight = self._left = weight
        self.waited_s = 0.0
        self.granted = threading.Event()

    def __enter__(self) -> Self:
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

    def pass_on(self) -> None:
        """After as many blocks as the turn lasts, go to the end of the line if there is one, and wait for the next.

        Raises:
            ServiceError: the reason of the cancellation, if it comes first.
        """
        self._left -= 1
        if self._left <= 0 and self._turns.asked_for:
            self._left = self._weight
            self._turns.leave(self)
            self.granted.clear()
            self._wait()

    def _wait(self) -> None:
        began = time.monotonic()
        self._turns.join(self)
        with self._cancellation.calling(lambda _: self.granted.set()):
            self.granted.wait()
        self.waited_s += time.monotonic() - began
        self._cancellation.check()
