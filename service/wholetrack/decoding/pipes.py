"""Read the pipes of a process with bounds on time and memory."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from typing import IO

# When no data arrives for this long, or a block is not full after this long, the track yields its slot to others.
_SILENCE_TIMEOUT_S, _BLOCK_TIMEOUT_S = 0.2, 1.0
_CHUNK_BYTES = 1 << 16


class OutputReader:
    """Reads the output of a process, and its log at the same time, so that neither blocks the process.

    When a block of output is returned, everything that the process logged before it wrote that block has been passed
    on.

    Args:
        stdout: Unbuffered read end of its output.
        stderr: Unbuffered read end of its log.
        on_log: Receives the log in parts, as it arrives.
    """

    def __init__(self, stdout: IO[bytes], stderr: IO[bytes], on_log: Callable[[bytes], None]) -> None:
        self._stdout = stdout
        self._stderr = stderr.fileno()
        self._on_log = on_log
        self._poll = select.poll()
        self._poll.register(stdout, select.POLLIN)
        self._poll.register(stderr, select.POLLIN)
        self._log_poll = select.poll()
        self._log_poll.register(stderr, select.POLLIN)
        self._log_ended = False

    def read_into(self, view: memoryview) -> tuple[int, bool]:
        """Fill ``view``, but stop when no data arrives for 0.2 seconds, one second has passed, or the output ends.

        Returns:
            The number of bytes read, and whether the output has ended.
        """
        filled, ended, deadline = 0, False, time.monotonic() + _BLOCK_TIMEOUT_S
        while filled < len(view) and not ended and time.monotonic() < deadline:
            ready = {descriptor for descriptor, _ in self._poll.poll(1000 * _SILENCE_TIMEOUT_S)}
            if not ready:
                break
            if self._stderr in ready:
                self._read_log()
            if self._stdout.fileno() in ready:
                received = self._stdout.readinto(view[filled:])  # type: ignore[attr-defined]
                ended = not received
                filled += received
        self.read_log(0.0)
        return filled, ended

    def read_log(self, timeout_s: float) -> None:
        """Read the log until it ends or there is nothing to read for ``timeout_s`` seconds."""
        while not self._log_ended and self._log_poll.poll(1000 * timeout_s):
            self._read_log()

    def _read_log(self) -> None:
        chunk = os.read(self._stderr, _CHUNK_BYTES)
        if chunk:
            self._on_log(chunk)
        else:
            self._log_ended = True
            self._poll.unregister(self._stderr)
