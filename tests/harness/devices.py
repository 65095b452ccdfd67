"""A device that tests control step by step."""

from __future__ import annotations

import threading

import numpy as np

from wholetrack.contracts import Rows, Windows, separate_windows
from wholetrack.inference.gpu_memory import GpuMemory
from wholetrack.inference.queue import TrackQueue


class FakeDevice:
    """A classifier whose outputs for a window are made of the window's number. A run waits until the test permits it.

    It has two inputs and two outputs, so that every test shows that they stay together.

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
    window_shapes: tuple[tuple[int, ...], ...] = ((1, 1), (2, 1))
    output_shapes: tuple[tuple[int, ...], ...] = ((2,), (1,))

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

    def run(self, windows: Windows) -> Rows:
        """Return ``[number, 1 - number]`` and ``[10 * number]`` for each window."""
        first, second = separate_windows(windows).arrays
        numbers, doubled = first[:, 0, 0], second[:, 1, 0]
        assert np.array_equal(doubled, 2 * numbers), "the inputs of different windows were mixed"
        self.batches.append(numbers.tolist())
        self.entered.release()
        self.permits.acquire()
        if self.dies:
            raise SystemExit
        if self.fails or self.poison in self.batches[-1] or len(windows) > self.largest:
            raise RuntimeError(self.message)
        return Rows.of(np.stack([numbers, 1 - numbers], axis=1), 10 * numbers[:, None])


class FakeClock:
    """A clock that stands still until the test moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the current time of the clock, in seconds."""
        return self.now


def numbered(*numbers: float) -> Rows:
    """Return windows for :class:`FakeDevice`: the number in one input, and twice the number in the other."""
    first = np.array(numbers, dtype=np.float32)[:, None, None]
    return Rows.of(first, np.concatenate((first, 2 * first), axis=1))


def numbers_of(track: TrackQueue) -> list[float]:
    """Wait for the outputs of a track and return the numbers of its windows."""
    outputs = track.finish()
    assert outputs is not None
    first, second = outputs.rows
    assert first is not None
    assert second is not None
    assert np.array_equal(second[:, 0], 10 * first[:, 0]), "the outputs of different windows were mixed"
    numbers: list[float] = first[:, 0].tolist()
    return numbers
