"""The memory of a GPU, as its driver reports it, and its division among the models."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

    A model that needs less than its part leaves the rest to those that are opened later. Only what the memory in use
    grows by while a model is opened counts as used by the models: other processes use the GPU too.

    Args:
        measure: Returns the memory of the GPU.
        limit_bytes: What all models together may use; None for most of what is free now.
    """

    def __init__(self, measure: Callable[[], GpuMemory], limit_bytes: int | None = None) -> None:
        now = measure()
        self._measure = measure
        self._used = 0
        self._limit_bytes = limit_bytes or int((now.size - now.used) * _USABLE_SHARE)

    @contextmanager
    def sharing(self, part: float) -> Iterator[int]:
        """Open sessions in the ``with`` block, and count what they use. Yield their memory limit in bytes.

        Args:
            part: Part of what the earlier sessions left, in (0, 1].
        """
        before = self._measure()
        left = min(self._limit_bytes - self._used, before.size - before.used)
        yield max(_MIN_LIMIT, int(left * part))
        # A session that could not be opened releases its memory, but may not have done so yet.
        self._used += max(0, self._measure().used - before.used)


def _explain(driver: ctypes.CDLL, status: int) -> str:
    message = ctypes.c_char_p()
    driver.cuGetErrorString(status, ctypes.byref(message))
    return (message.value or b"unknown error").decode()
