"""A session whose network runs elsewhere: in another process or on another machine."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Protocol

from wholetrack.contracts import ModelCard, Rows, Windows
from wholetrack.inference.engine import max_waiting_windows
from wholetrack.inference.gpu_memory import GpuMemory
from wholetrack.inference.worker import UnreachableError

# The pauses between attempts, which double. Each is shortened at random, so that many clients do not retry together.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0


class Transport(Protocol):
    """Sends windows to the network and receives its outputs. Several threads may call it at the same time."""

    def __call__(self, windows: Windows, *, timeout_s: float) -> Rows:
        """Return the outputs for normalised windows.

        Raises:
            UnreachableError: If the network did not respond in that time. The session tries again.
            Exception: Any other one means that the network cannot classify these windows.
        """


class RemoteSession:
    """A network that runs elsewhere, as a classifier of the engine.

    While it cannot be reached, it tries again for a limited time. The engine fails the tracks only after that, and
    accepts others once the network responds.

    Args:
        card: Contents of the model's ``model.json``.
        send: Sends windows to the network.
        device: Device of the network.
        precision: Number format in which it computes.
        timeout_s: Time limit of a run with all its attempts, in seconds. It has to be less than the time after which
            the engine considers a run hung.
        max_batch: Largest number of windows in a run; None for as many as the engine lets wait for each track. The
            network may divide them into batches of its own.

    Attributes:
        device: Device of the network.
        precision: Number format in which it computes.
        max_batch: Largest number of windows in a run.
        window_shapes: Shape of one window of each input, ``(frames, n_mels)``.
        output_shapes: Shape of each output for one window.
    """

    def __init__(
        self,
        card: ModelCard,
        send: Transport,
        *,
        device: str,
        precision: str,
        timeout_s: float,
        max_batch: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.device = device
        self.precision = precision
        self.window_shapes: tuple[tuple[int, ...], ...] = tuple(entry.shape[1:] for entry in card.inputs)
        self.output_shapes = card.output_shapes
        self.max_batch = max_batch or max_waiting_windows(self.window_shapes)
        self._send = send
        self._timeout_s = timeout_s
        self._clock = clock
        self._sleep = sleep

    @property
    def memory(self) -> GpuMemory | None:
        """None, because the process that runs the network reports its memory."""
        return None

    def run(self, windows: Windows) -> Rows:
        """Classify windows.

        Args:
            windows: Normalised windows, at most ``max_batch``.

        Raises:
            UnreachableError: If no attempt has reached the network within the time limit.
        """
        end, pause_s = self._clock() + self._timeout_s, _FIRST_PAUSE_S
        while True:
            try:
                return self._send(windows, timeout_s=end - self._clock())
            except UnreachableError:
                if self._clock() + pause_s >= end:
                    raise
            self._sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - nothing depends on it being unpredictable
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
