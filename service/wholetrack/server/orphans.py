"""Collects the exit statuses of orphaned processes, which would otherwise remain as zombies.

When a process ends, the kernel makes PID 1 the parent of its children. In a container without an init process the
service is PID 1: if a launcher is killed, the service inherits the decoders.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

_PR_GET_CHILD_SUBREAPER = 37
_INTERVAL_S = 5.0


class _Zombie(NamedTuple):
    """A child that has ended. The time of its start tells it from another process with the same number."""

    pid: int
    started: str


class OrphanReaper:
    """Collects the exit statuses of children that this process inherited.

    An ended child whose exit status has not been collected between two calls of :meth:`collect` counts as inherited.
    Code that starts a process must therefore wait for it at once, or be covered by ``is_own``, as the sandbox is.

    Args:
        is_own: Whether a process was started by this one, which will collect its exit status, however late.
    """

    def __init__(self, is_own: Callable[[int], bool]) -> None:
        self._is_own = is_own
        self._before = frozenset[_Zombie]()

    def collect(self) -> None:
        """Collect the exit statuses of inherited children that had ended before the previous call."""
        zombies = frozenset(zombie for zombie in _zombies() if not self._is_own(zombie.pid))
        for zombie in zombies & self._before:
            with suppress(ChildProcessError):
                os.waitpid(zombie.pid, os.WNOHANG)
        self._before = zombies


@contextmanager
def reaping_orphans(is_own: Callable[[int], bool], *, every_s: float = _INTERVAL_S) -> Iterator[None]:
    """Run an :class:`OrphanReaper` during the block, if this process inherits orphans."""
    if not _inherits_orphans():
        yield
        return
    reaper, ended = OrphanReaper(is_own), threading.Event()

    def run() -> None:
        while not ended.wait(every_s):
            reaper.collect()

    thread = threading.Thread(target=run, name="orphans", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _inherits_orphans() -> bool:
    is_subreaper = ctypes.c_int(0)
    ctypes.CDLL(None).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(is_subreaper), 0, 0, 0)
    return os.getpid() == 1 or bool(is_subreaper.value)


def _zombies() -> Iterator[_Zombie]:
    """Yield the children of this process that have ended and whose exit status was not collected."""
    parent = str(os.getpid())
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            # The name of a process is in parentheses and may contain anything. The fields after it are state, parent,
            # and as the twentieth the time of the start (proc_pid_stat(5)).
            fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
            if fields[:2] == ["Z", parent]:
                yield _Zombie(int(folder.name), fields[19])
