"""A control group with a memory limit, to run a service in (cgroups(7))."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.harness.waiting import until
from wholetrack import memory_limit

# The names in version 2 and in version 1.
_LIMIT_FILES, _PEAK_FILES = ("memory.max", "memory.limit_in_bytes"), ("memory.peak", "memory.max_usage_in_bytes")
_EVENT_FILES = ("memory.events", "memory.oom_control")


@dataclass(frozen=True, slots=True)
class MemoryGroup:
    """A control group.

    Attributes:
        folder: Its folder.
    """

    folder: Path

    def command(self, *command: str) -> list[str]:
        """Return a command that executes another one in this group."""
        return ["/bin/sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(self.folder), *command]

    def n_killed(self) -> int:
        """Return how many processes the kernel has killed because the group exceeded its limit."""
        events = dict(line.split() for line in _first(self.folder, _EVENT_FILES).read_text().splitlines())
        return int(events["oom_kill"])

    def peak_bytes(self) -> int:
        """Return the largest memory use so far, including files that are cached."""
        return int(_first(self.folder, _PEAK_FILES).read_text())


@contextmanager
def memory_group(limit_bytes: int) -> Iterator[MemoryGroup]:
    """Yield a new group with a limit, below that of this process; skip the test where none can be created."""
    group = None
    for parent in memory_limit._control_groups(Path("/")):
        folder = parent / f"wholetrack-test-{os.getpid()}"
        try:
            folder.mkdir()
            _first(folder, _LIMIT_FILES).write_text(str(limit_bytes))
            group = MemoryGroup(folder)
            break
        except (OSError, StopIteration):
            if folder.is_dir():
                folder.rmdir()
    if group is None:
        pytest.skip("no control group with a memory limit can be created here")
    try:
        yield group
    finally:
        until(lambda: not (group.folder / "cgroup.procs").read_text(), seconds=20)
        group.folder.rmdir()


def _first(folder: Path, names: tuple[str, ...]) -> Path:
    return next(folder / name for name in names if (folder / name).exists())
