"""Samples of the state of a process, taken in the background."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Sample = TypeVar("Sample")


@contextmanager
def sampling(take_sample: Callable[[], Sample], *, every_s: float) -> Iterator[list[Sample]]:
    """Take a sample at the beginning of the block and then at regular intervals, and collect the samples.

    Args:
        take_sample: Called in a thread of its own.
        every_s: Pause between two samples, in seconds.
    """
    samples: list[Sample] = []
    stopping = threading.Event()

    def run() -> None:
        while not stopping.is_set():
            samples.append(take_sample())
            stopping.wait(every_s)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield samples
    finally:
        stopping.set()
        thread.join()
