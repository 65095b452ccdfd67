"""Whether this machine has an NVIDIA GPU, and whether onnxruntime can use it."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import logging
from pathlib import Path

import onnxruntime as ort

from wholetrack.errors import StartupError
from wholetrack.inference.gpu_memory import DRIVER

CUDA_PROVIDER = "CUDAExecutionProvider"

_log = logging.getLogger(__name__)


def gpu_present(root: Path = Path("/")) -> bool:
    """Return whether the machine has an NVIDIA GPU, whether or not this process can use it.

    The driver lists its GPUs below ``/proc``, which containers without access to them can read too. Some container
    runtimes hide that folder and only provide the device files. A GPU without a driver is not found.

    Args:
        root: Root of the file system.
    """
    return any(root.glob("proc/driver/nvidia/gpus/*")) or any(root.glob("dev/nvidia[0-9]*"))


@functools.cache
def load_cuda() -> None:
    """Check that onnxruntime supports CUDA and that there is a driver, and load the libraries of CUDA and cuDNN.

    Raises:
        StartupError: If onnxruntime was built without CUDA, or no driver is installed.
    """
    if CUDA_PROVIDER not in ort.get_available_providers():
        raise StartupError(
            "this onnxruntime does not support CUDA: install the extra 'gpu' in place of 'cpu' (never both), or set "
            "WHOLETRACK_DEVICE=cpu"
        )
    try:
        ctypes.CDLL(DRIVER)
    except OSError as error:
        raise StartupError(
            f"no NVIDIA driver was found ({DRIVER} is missing): install it, give the container access to the GPU, or "
            "set WHOLETRACK_DEVICE=cpu"
        ) from error
    # It prints what it cannot load to standard output, which belongs to the results of commands.
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        # Prefer CUDA and cuDNN from the installed Python packages to those of the system.
        ort.preload_dlls(directory="")
    if complaints := "; ".join(printed.getvalue().splitlines()):
        _log.warning("onnxruntime: %s", complaints)
