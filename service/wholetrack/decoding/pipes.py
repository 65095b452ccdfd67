"""Reading from a program without ever waiting for it for long, or keeping more of it than there is room for."""

from __future__ import annotations

import select
import threading
import time
from typing import IO

# A decoder that gives nothing for so long, or not a block in so long, lets others have its turn.
_SILENCE_S, _BLOCK_S = 0.2, 1.0


def read_into(pipe: IO[bytes], view: memoryview) -> tuple[int, bool]:
    """Fill ``view`` until nothing comes for a while, or a second is over; gives how far, and whether the pipe ended."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    filled, until = 0, time.monotonic() + _BLOCK_S
    while filled < len(view) and time.monotonic() < until and poll.poll(1000 * _SILENCE_S):
        received = pipe.readinto(view[filled:])  # type: ignore[attr-defined]
        if not received:
            return filled, True
        filled += received
    return filled, False


class BoundedReader:
    """Drains a pipe in a thread, so that its writer never waits, and keeps the beginning and the end."""

    def __init__(self, pipe: IO[bytes], limit: int) -> None:
        self._pipe = pipe
        self._half = limit // 2
        self._head = bytearray()
        self._tail = bytearray()
        self._thread = threading.Thread(target=self._drain, name="ffmpeg-stderr", daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        while words := self._pipe.read(8192):
            room = self._half - len(self._head)
            self._head += words[:room]
            self._tail += words[room:] if room > 0 else words
            del self._tail[: -self._half]

    def so_far(self) -> str:
        """What was kept until now."""
        return (bytes(self._head) + bytes(self._tail)).decode("utf-8", errors="replace")

    def close(self) -> str:
        """Wait for the writer to end and give what was kept."""
        self._thread.join()
        self._pipe.close()
        return self.so_far()
