"""Read from the pipes of a process with bounds on time and memory."""

from __future__ import annotations

import select
import threading
import time
from typing import IO

# When no data arrives for this long, or a block is not full after this long, the track yields its slot to others.
_SILENCE_TIMEOUT_S, _BLOCK_TIMEOUT_S = 0.2, 1.0
_CHUNK_BYTES = 8192


def read_into(pipe: IO[bytes], view: memoryview) -> tuple[int, bool]:
    """Read into ``view`` until it is full, no data arrives for 0.2 seconds, one second has passed, or the pipe ends.

    Args:
        pipe: An unbuffered read end.
        view: Where to put the data.

    Returns:
        The number of bytes read, and whether the pipe has ended.
    """
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    filled, deadline = 0, time.monotonic() + _BLOCK_TIMEOUT_S
    while filled < len(view) and time.monotonic() < deadline and poll.poll(1000 * _SILENCE_TIMEOUT_S):
        received = pipe.readinto(view[filled:])  # type: ignore[attr-defined]
        if not received:
            return filled, True
        filled += received
    return filled, False


class BoundedReader:
    """Reads a pipe in a background thread, so that its writer never blocks, and keeps the beginning and the end.

    Args:
        pipe: The read end; owned by this object.
        max_bytes: How much to keep in bytes, half of it from the beginning and half from the end.

    Raises:
        RuntimeError: If no thread can be started.
    """

    def __init__(self, pipe: IO[bytes], max_bytes: int) -> None:
        self._pipe = pipe
        self._half = max_bytes // 2
        self._head = bytearray()
        self._tail = bytearray()
        self._thread = threading.Thread(target=self._read, name="ffmpeg-stderr", daemon=True)
        self._thread.start()

    def text(self) -> str:
        """Return what was kept so far."""
        return (bytes(self._head) + bytes(self._tail)).decode("utf-8", errors="replace")

    def close(self) -> str:
        """Wait until the writer closes the pipe, and return what was kept."""
        self._thread.join()
        self._pipe.close()
        return self.text()

    def _read(self) -> None:
        while chunk := self._pipe.read(_CHUNK_BYTES):
            free = self._half - len(self._head)
            self._head += chunk[:free]
            self._tail += chunk[free:] if free > 0 else chunk
            del self._tail[: -self._half]
