"""Read the pipes of a process with bounds on time and memory."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from typing import IO

SILENCE_TIMEOUT_S, BLOCK_TIMEOUT_S = 0.2, 1.0
"""When no data arrives for the first time, or a block is not full after the second, the track yields its slot."""

_CHUNK_BYTES = 1 << 16


class LogReader:
    """Reads the log of a process while its output is awaited, so that neither blocks the process.

    Args:
        stderr: Unbuffered read end of the log.
        on_log: Receives the log in parts, as it arrives.
    """

    def __init__(self, stderr: IO[bytes], on_log: Callable[[bytes], None]) -> None:
        self._stderr = stderr.fileno()
        self._on_log = on_log
        self._poll = select.poll()
        self._poll.register(stderr, select.POLLIN)
        self._ended = False

    def wait_for(self, descriptor: int, *, deadline: float) -> int:
        """Wait until there is something to read from a descriptor, and read the log in the meantime.

        Args:
            descriptor: The descriptor.
            deadline: When to stop waiting, in monotonic time.

        Returns:
            The events of the descriptor, as in ``select.poll``; 0 if it has none by the deadline, or if neither it nor
            the log has data for 0.2 seconds.
        """
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        if not self._ended:
            poll.register(self._stderr, select.POLLIN)
        while time.monotonic() < deadline:
            events = dict(poll.poll(1000 * SILENCE_TIMEOUT_S))
            if self._stderr in events and self._read_chunk():
                poll.unregister(self._stderr)
            if not events or descriptor in events:
                return events.get(descriptor, 0)
        return 0

    def read(self, timeout_s: float) -> None:
        """Read the log until it ends or there is nothing to read for ``timeout_s`` seconds."""
        while not self._ended and self._poll.poll(1000 * timeout_s):
            self._read_chunk()

    def _read_chunk(self) -> bool:
        """Pass on the next part of the log; return whether it has ended."""
        chunk = os.read(self._stderr, _CHUNK_BYTES)
        if chunk:
            self._on_log(chunk)
        self._ended = not chunk
        return self._ended
