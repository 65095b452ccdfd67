"""A device that tests control step by step."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from wholetrack.inference.gpu_memory import GpuMemory


class FakeDevice:
    """A classifier whose output for a window is the window's number. A run waits until the test permits it.

    Attributes:
        batches: Numbers of the windows in each run so far.
        permits: One for each run that may finish.
        entered: Released when a run begins.
        dies: Whether runs end their thread.
        fails: Whether runs raise.
        message: Message of the error that they raise.
        poison: A window number for which runs raise.
        largest: Batch size above which runs raise.
    """

    precision = "float32"
    window_shape: tuple[int, ...] = (1, 1)
    output_shape: tuple[int, ...] = (2,)

    def __init__(self, device: str = "fake", *, max_batch: int = 4, permits: int = 0) -> None:
        self.device = device
        self.max_batch = self.largest = max_batch
        self.memory: GpuMemory | None = None
        self.batches: list[list[float]] = []
        self.permits = threading.Semaphore(permits)
        self.entered = threading.Semaphore(0)
        self.dies = self.fails = False
        self.message = "out of order"
        self.poison: float | None = None

    def run(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return ``[number, 1 - number]`` for each window."""
        self.batches.append(windows[:, 0, 0].tolist())
        self.entered.release()
        self.permits.acquire()
        if self.dies:
            raise SystemExit
        if self.fails or self.poison in self.batches[-1] or len(windows) > self.largest:
            raise RuntimeError(self.message)
        return np.stack([windows[:, 0, 0], 1 - windows[:, 0, 0]], axis=1)


class FakeClock:
    """A clock that stands still until the test moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the current time of the clock, in seconds."""
        return self.now


def numbered(*numbers: float) -> NDArray[np.float32]:
    """Return windows for :class:`FakeDevice`, ``[n, 1, 1]``."""
    return np.array(numbers, dtype=np.float32)[:, None, None]
