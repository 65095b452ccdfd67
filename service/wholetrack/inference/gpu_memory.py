"""The memory of a GPU, as its driver reports it, and its division among the models."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass

from wholetrack.errors import StartupError

DRIVER = "libcuda.so.1"

# CUDA itself needs the rest, for the code of the kernels that the models use.
_USABLE_SHARE = 0.9
# onnxruntime takes 0 for no limit.
_MIN_LIMIT = 1 << 20


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


def measure_gpu(number: int) -> GpuMemory:
    """Read the memory of a GPU that need not have been used before.

    It makes the primary context of the GPU current in the calling thread, which is the context of onnxruntime too, and
    keeps it for the life of the process: releasing it would end it, and opening it again takes a moment.

    Args:
        number: Index of the GPU.

    Raises:
        StartupError: If there is no such GPU, or its driver does not work.
        OSError: If no driver is installed.
    """
    driver = ctypes.CDLL(DRIVER)
    device, context = ctypes.c_int(), ctypes.c_void_p()
    for name, arguments in (
        ("cuInit", (0,)),
        ("cuDeviceGet", (ctypes.byref(device), number)),
        ("cuDevicePrimaryCtxRetain", (ctypes.byref(context), device)),
        ("cuCtxSetCurrent", (context,)),
    ):
        if status := getattr(driver, name)(*arguments):
            raise StartupError(f"GPU {number} cannot be used: {name} returns {status} ({_explain(driver, status)})")
    memory = memory_reader()()
    if memory is None:
        raise StartupError(f"GPU {number} cannot be used: its driver does not report its memory")
    return memory


class MemoryBudget:
    """The memory of one GPU that the models share. They are opened one after the other.

    A model that needs less than its part leaves the rest to those that are opened later.

    Args:
        measure: Returns the memory of the GPU.
        limit_bytes: What all models together may use; None for most of what is free now.
    """

    def __init__(self, measure: Callable[[], GpuMemory], limit_bytes: int | None = None) -> None:
        now = measure()
        self._measure = measure
        self._used_before = now.used
        self._limit_bytes = limit_bytes or int((now.size - now.used) * _USABLE_SHARE)

    def share_bytes(self, part: float) -> int:
        """Return the memory limit of the next session, in bytes.

        Args:
            part: Part of what the earlier sessions left, in (0, 1].
        """
        now = self._measure()
        left = min(self._limit_bytes - (now.used - self._used_before), now.size - now.used)
        return max(_MIN_LIMIT, int(left * part))


def _explain(driver: ctypes.CDLL, status: int) -> str:
    message = ctypes.c_char_p()
    driver.cuGetErrorString(status, ctypes.byref(message))
    return (message.value or b"unknown error").decode()
