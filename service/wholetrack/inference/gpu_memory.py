"""How much of a GPU's memory is taken, by all who use it, as its driver says."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass

DRIVER = "libcuda.so.1"


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """The memory of a GPU at a moment.

    Attributes:
        used: bytes taken, by whomever.
        size: bytes it has.
        asked_at: when, on the monotonic clock, in seconds.
    """

    used: int
    size: int
    asked_at: float


def memory_reader() -> Callable[[], GpuMemory | None]:
    """What asks the driver about the GPU that the calling thread has just used; it gives None where it cannot be told.

    The driver's ``cuMemGetInfo`` speaks of the current context, which onnxruntime's run leaves behind in its thread.

    Raises:
        OSError: if there is no driver.
    """
    ask = getattr(ctypes.CDLL(DRIVER), "cuMemGetInfo_v2", None)
    free, size = ctypes.c_size_t(), ctypes.c_size_t()

    def read() -> GpuMemory | None:
        if ask is None or ask(ctypes.byref(free), ctypes.byref(size)) != 0:
            return None
        return GpuMemory(used=size.value - free.value, size=size.value, asked_at=time.monotonic())

    return read
