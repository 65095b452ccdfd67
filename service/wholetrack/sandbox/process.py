"""A program that runs in the sandbox, as the service sees it."""

from __future__ import annotations

import math
import os
import resource
import select
import signal
import socket
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from wholetrack.sandbox.protocol import MAX_REPLY_BYTES

# The launcher sends the exit status as soon as its event loop gets to it. Only a stopped launcher takes longer.
_STATUS_TIMEOUT_S = 2.0
# Position of the field "data" in /proc/PID/statm, which counts pages (proc(5)).
_STATM_DATA = 5


class SandboxedProcess:
    """A running program, and a context manager that kills it and waits for its end.

    Args:
        pid: Its process id.
        pidfd: A descriptor that refers to it; owned by this object.
        status_socket: Socket to the launcher, for this program alone; owned by this object.
        stdout: See the attribute; owned by this object.
        stderr: See the attribute; to be closed by the caller.

    Attributes:
        pid: Its process id.
        stdout: Unbuffered read end of its output.
        stderr: Unbuffered read end of its standard error. :meth:`close` leaves it open, because another thread may
            still be reading it.
    """

    def __init__(
        self, *, pid: int, pidfd: int, status_socket: socket.socket, stdout: IO[bytes], stderr: IO[bytes]
    ) -> None:
        self.pid = pid
        self.stdout = stdout
        self.stderr = stderr
        self._status_socket = status_socket
        self._pidfd = pidfd
        # Two locks, so that kill() never waits for a thread that receives the exit status.
        self._pidfd_lock, self._status_lock = threading.Lock(), threading.Lock()
        self._status: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def poll(self) -> int | None:
        """Return the exit status, minus the number of the signal that killed it, or None while it runs."""
        if self._status is None and wait_readable(self._pidfd, 0):
            with self._status_lock:
                if self._status is None:
                    self._status = self._receive_status()
        return self._status

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait for the program to end and return its exit status as :meth:`poll` does.

        Raises:
            TimeoutError: If it is still running after ``timeout_s`` seconds.
        """
        if self._status is None and not wait_readable(self._pidfd, timeout_s):
            raise TimeoutError
        status = self.poll()
        assert status is not None
        return status

    def set_cpu_limit(self, cpu_s: float) -> None:
        """Limit the CPU time to ``cpu_s`` seconds in total, at most the ``max_cpu_s`` that it was started with."""
        with suppress(OSError):
            self._status_socket.send(str(math.ceil(cpu_s)).encode())

    def data_bytes(self) -> int:
        """Return how much private writable memory the program has mapped, in bytes; 0 once it has ended."""
        try:
            statm = Path(f"/proc/{self.pid}/statm").read_text()
        except OSError:
            return 0
        # Once a program has ended, the launcher may have reaped it, and its number may have been given to another one.
        return int(statm.split()[_STATM_DATA]) * resource.getpagesize() if self.poll() is None else 0

    def kill(self) -> None:
        """Kill the program. Does nothing once it has ended, because a pidfd never refers to another process."""
        with self._pidfd_lock, suppress(OSError):
            if self._pidfd >= 0:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def close(self) -> None:
        """Kill the program, wait for its end, and close everything but :attr:`stderr`."""
        with self._status_socket:
            self.kill()
            self.stdout.close()
            self.wait()
            with self._pidfd_lock:
                if self._pidfd >= 0:
                    os.close(self._pidfd)
                self._pidfd = -1

    def _receive_status(self) -> int:
        """Return the status that the launcher sent; without one, the launcher ended and its programs were killed."""
        reply = b""
        if wait_readable(self._status_socket.fileno(), _STATUS_TIMEOUT_S):
            try:
                reply = self._status_socket.recv(MAX_REPLY_BYTES)
            except ConnectionResetError:
                # The launcher closed its end with a CPU limit unread. The status that it sent can still be received.
                reply = self._status_socket.recv(MAX_REPLY_BYTES)
        return int(reply) if reply else -signal.SIGKILL


def wait_readable(descriptor: int, timeout_s: float | None) -> bool:
    """Return whether ``descriptor`` has data or an end of file to read within ``timeout_s`` seconds (None: forever)."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(None if timeout_s is None else 1000 * timeout_s))
