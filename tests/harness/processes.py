"""Child processes of the service or of a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import psutil

from tests.harness.waiting import until


def descendants(process: psutil.Process) -> Iterator[tuple[psutil.Process, str]]:
    """Yield every process below this one with its name, except those that end in the meantime."""
    for child in process.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            yield child, child.name()


def ffmpegs() -> list[psutil.Process]:
    """Return the ffmpeg processes below the current process."""
    return [child for child, name in descendants(psutil.Process()) if name.startswith("ffmpeg")]


def only_ffmpeg() -> psutil.Process:
    """Return the one ffmpeg process, which has this name only once the sandbox has executed it."""
    until(lambda: bool(ffmpegs()))
    (process,) = ffmpegs()
    return process
