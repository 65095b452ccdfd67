"""Memory use of a GPU, as its driver reports it."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass

DRIVER = "libcuda.so.1"


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """The memory of a GPU at one moment.

    Attributes:
        used: Bytes in use by all processes.
        size: Total bytes.
        measured_at: Time of the measurement on the monotonic clock, in seconds.
    """

    used: int
    size: int
    measured_at: float


def memory_reader() -> Callable[[], GpuMemory | None]:
    """Return a function that reads the memory of the GPU that the calling thread used last.

    ``cuMemGetInfo`` reports on the current CUDA context, which a run of onnxruntime leaves set in its thread. The
    function returns None if the driver does not report it.

    Raises:
        OSError: If no driver is installed.
    """
    get_info = getattr(ctypes.CDLL(DRIVER), "cuMemGetInfo_v2", None)

    def read() -> GpuMemory | None:
        free, size = ctypes.c_size_t(), ctypes.c_size_t()
        if get_info is None or get_info(ctypes.byref(free), ctypes.byref(size)) != 0:
            return None
        return GpuMemory(used=size.value - free.value, size=size.value, measured_at=time.monotonic())

    return read
