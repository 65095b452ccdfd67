"""Run a command while every processor is busy, to find tests that depend on timing.

``python -m tests.harness.busy COMMAND [ARGUMENT ...]``
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_PROCESSES_PER_CPU = 2


@contextmanager
def busy_processors(per_cpu: int = _PROCESSES_PER_CPU) -> Iterator[None]:
    """Keep every processor busy with endless loops while the block runs."""
    with ExitStack() as stack:
        for _ in range(per_cpu * len(os.sched_getaffinity(0))):
            loop = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(loop.kill)
        yield


def main() -> int:
    """Run the command; return its exit status."""
    with busy_processors():
        return subprocess.run(sys.argv[1:], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
