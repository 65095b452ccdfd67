"""Which CPU each ffmpeg process is pinned to.

ffmpeg's demuxer, decoder, filters and muxer are threads that pass frames of a few milliseconds to each other. Spread
over several CPUs, they spend more time waking each other up than decoding (measured by ``python -m bench.decoding``),
so all threads of one process share a CPU.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable


class CpuAllocator:
    """Distributes processes over CPUs; each gets one of those with the fewest processes.

    Args:
        cpus: Numbers of the CPUs.
    """

    def __init__(self, cpus: Iterable[int]) -> None:
        self._lock = threading.Lock()
        self._n_processes = dict.fromkeys(sorted(cpus), 0)

    def acquire(self) -> int:
        """Return the CPU for one more process."""
        with self._lock:
            cpu = min(self._n_processes, key=self._n_processes.__getitem__)
            self._n_processes[cpu] += 1
        return cpu

    def release(self, cpu: int) -> None:
        """Record the end of a process that was pinned to ``cpu``."""
        with self._lock:
            self._n_processes[cpu] -= 1
