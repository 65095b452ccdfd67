"""Resource limits of a sandboxed program."""

from __future__ import annotations

import math
import resource
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits that the kernel enforces on one program.

    Core dumps are always disabled.

    Attributes:
        cpu_s: CPU time in seconds after which the program is terminated, unless the limit is raised while it runs. None
            for no limit.
        max_cpu_s: CPU time in seconds up to which ``cpu_s`` can be raised; None for no limit.
        data_bytes: Private writable memory: heap, stacks of threads and anonymous mappings. A compromised program can
            evade this limit, for example by making its memory read-only, but not the next one.
        address_space_bytes: All mappings together, including the program and its libraries.
        stack_bytes: The stack of the main thread, which is not part of ``data_bytes``, and with glibc the default size
            of the stacks of other threads, which are.
        open_files: Number of file descriptors.
        file_bytes: Size up to which the program can write a file, shared memory included; by default it can write none.
    """

    cpu_s: float | None
    max_cpu_s: float | None
    data_bytes: int
    address_space_bytes: int
    stack_bytes: int
    open_files: int
    file_bytes: int = 0

    def rlimits(self) -> list[tuple[int, int, int]]:
        """Return the arguments of setrlimit(2): resource, soft limit and hard limit."""
        return [
            (resource.RLIMIT_DATA, self.data_bytes, self.data_bytes),
            (resource.RLIMIT_AS, self.address_space_bytes, self.address_space_bytes),
            (resource.RLIMIT_STACK, self.stack_bytes, self.stack_bytes),
            # The soft limit sends SIGXCPU, which tells this case apart from the SIGKILL of a kernel that is out of
            # memory. The hard limit sends SIGKILL, for programs that ignore SIGXCPU.
            (resource.RLIMIT_CPU, _seconds(self.cpu_s), _seconds(self.max_cpu_s, margin=1)),
            (resource.RLIMIT_NOFILE, self.open_files, self.open_files),
            (resource.RLIMIT_FSIZE, self.file_bytes, self.file_bytes),
            (resource.RLIMIT_CORE, 0, 0),
        ]


def _seconds(limit_s: float | None, *, margin: int = 0) -> int:
    return resource.RLIM_INFINITY if limit_s is None else math.ceil(limit_s) + margin
