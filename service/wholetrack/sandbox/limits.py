"""Resource limits of a sandboxed program."""

from __future__ import annotations

import math
import resource
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits that the kernel enforces on one program.

    Writing to files and core dumps are always disabled.

    Attributes:
        cpu_s: CPU time in seconds after which the program is terminated, unless the limit is raised while it runs.
        max_cpu_s: CPU time in seconds up to which ``cpu_s`` can be raised.
        data_bytes: Private writable memory: heap, stacks of threads and anonymous mappings. A compromised program can
            evade this limit, for example by making its memory read-only, but not the next one.
        address_space_bytes: All mappings together, including the program and its libraries.
        stack_bytes: The stack of the main thread, which is not part of ``data_bytes``, and with glibc the default size
            of the stacks of other threads, which are.
        open_files: Number of file descriptors.
    """

    cpu_s: float
    max_cpu_s: float
    data_bytes: int
    address_space_bytes: int
    stack_bytes: int
    open_files: int

    def rlimits(self) -> list[tuple[int, int, int]]:
        """Return the arguments of setrlimit(2): resource, soft limit and hard limit."""
        return [
            (resource.RLIMIT_DATA, self.data_bytes, self.data_bytes),
            (resource.RLIMIT_AS, self.address_space_bytes, self.address_space_bytes),
            (resource.RLIMIT_STACK, self.stack_bytes, self.stack_bytes),
            # The soft limit sends SIGXCPU, which tells this case apart from the SIGKILL of a kernel that is out of
            # memory. The hard limit sends SIGKILL, for programs that ignore SIGXCPU.
            (resource.RLIMIT_CPU, math.ceil(self.cpu_s), math.ceil(self.max_cpu_s) + 1),
            (resource.RLIMIT_NOFILE, self.open_files, self.open_files),
            (resource.RLIMIT_FSIZE, 0, 0),
            (resource.RLIMIT_CORE, 0, 0),
        ]
