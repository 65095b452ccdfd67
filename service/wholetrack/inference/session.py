"""An onnxruntime session on a device that has passed a self-test: it reproduced the bundle's golden outputs."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from wholetrack.errors import StartupError
from wholetrack.inference.bundle import Bundle
from wholetrack.inference.gpu_memory import DRIVER, GpuMemory, memory_reader
from wholetrack.inference.worker import Classifier
from wholetrack.settings import DeviceChoice, Precision, Settings

_log = logging.getLogger(__name__)

_CUDA_PROVIDER = "CUDAExecutionProvider"


class Session:
    """A network on a device. Any thread may run it.

    Attributes:
        device: ``cpu``, or ``cuda:`` and the number of a GPU.
        precision: Number format of the network.
        max_batch: Largest number of windows in a run.
        window_shape: Shape of one window, ``(frames, n_mels)``.
        output_shape: Shape of the output for one window.
        memory: Memory of the GPU after the last run; None on a CPU.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        bundle: Bundle,
        *,
        device: str,
        batch_sizes: list[int],
        precision: Precision = Precision.FLOAT32,
        read_memory: Callable[[], GpuMemory | None] = lambda: None,
    ) -> None:
        self._session = session
        self._spec = bundle.card.onnx
        self._padded = device != DeviceChoice.CPU
        self._batch_sizes = batch_sizes
        self._read_memory = read_memory
        self.device = device
        self.precision: str = precision
        self.max_batch = batch_sizes[-1]
        self.window_shape: tuple[int, ...] = self._spec.shape[1:]
        self.output_shape = bundle.card.output_shape
        self.memory: GpuMemory | None = None

    def run(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Classify windows.

        Args:
            windows: Normalised windows, ``[n, frames, n_mels]``, where ``n`` is at most ``max_batch``.

        Returns:
            Probabilities, ``[n, *output_shape]``.
        """
        n_windows = len(windows)
        if self._padded:
            # cuDNN searches for algorithms at every new shape. Only sizes from the warm-up ever run on a GPU.
            size = next(size for size in self._batch_sizes if size >= n_windows)
            windows = np.concatenate((windows, np.zeros((size - n_windows, *self.window_shape), dtype=np.float32)))
        outputs = self._session.run([self._spec.output], {self._spec.input: windows})
        self.memory = self._read_memory()
        scores: NDArray[np.float32] = np.asarray(outputs[0])[:n_windows]
        return scores if self._spec.yields == "probabilities" else _softmax(scores)

    def check_interface(self, bundle: Bundle) -> None:
        """Check that the inputs and outputs of the network are those of ``model.json``.

        Raises:
            StartupError: If a name or a shape differs.
        """
        card = bundle.card
        found = [
            *((node.name, node.shape[1:]) for node in self._session.get_inputs()),
            *((node.name, node.shape[1:]) for node in self._session.get_outputs()),
        ]
        expected = [(self._spec.input, list(self._spec.shape[1:])), (self._spec.output, list(card.output_shape))]
        if found != expected:
            raise StartupError(f"{card.name}: model.onnx has input and output {found}, model.json says {expected}")

    def warm_up(self) -> None:
        """Run every batch size once, so that no request waits for the slow first run at its size."""
        for size in self._batch_sizes if self._padded else [1, self.max_batch]:
            self.run(np.zeros((size, *self.window_shape), dtype=np.float32))

    def self_test(self, bundle: Bundle) -> None:
        """Compare the outputs for the bundle's golden windows on this device.

        Raises:
            StartupError: If a probability differs by more than the bundle's tolerance.
        """
        golden, tolerance = bundle.golden, bundle.card.golden.tolerance
        if self.precision == Precision.INT8 and bundle.card.int8:
            tolerance = bundle.card.int8.tolerance
        batches = [golden.windows[i : i + self.max_batch] for i in range(0, len(golden.windows), self.max_batch)]
        found = np.concatenate([self.run(batch) for batch in batches])
        worst = float(np.abs(found - golden.probabilities).max())
        # Not "worst > tolerance": a NaN must fail as well.
        if not worst <= tolerance:
            raise StartupError(
                f"{bundle.card.name} gives wrong outputs on {self.device} in {self.precision}: a golden probability is "
                f"off by {worst:.3g}, and the tolerance is {tolerance:g}"
            )

    def shrink_arena(self) -> None:
        """Return the working memory of large batches to the system (CPU only), because most models are mostly idle."""
        if not self._padded:
            options = ort.RunOptions()
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
            windows = np.zeros((1, *self.window_shape), dtype=np.float32)
            self._session.run([self._spec.output], {self._spec.input: windows}, options)


def open_sessions(bundle: Bundle, settings: Settings) -> list[Session]:
    """Open a bundle on the configured devices.

    Returns:
        A session for each worker. Workers on the CPU share one.

    Raises:
        StartupError: If a configured device cannot be used; with ``auto``, only if the CPU cannot be used either.
    """
    if settings.device is not DeviceChoice.CPU:
        try:
            return [
                open_session(bundle, settings, f"{DeviceChoice.CUDA}:{number}")
                for number in settings.cuda_devices
                for _ in range(settings.cuda_sessions)
            ]
        except StartupError as error:
            if settings.device is DeviceChoice.CUDA:
                raise
            _log.info("device=auto: using the CPU, not CUDA: %s", error)
    return [open_session(bundle, settings)] * settings.cpu_threads


def reopen_session(bundle: Bundle, settings: Settings, failed: Classifier) -> Session:
    """Open a new session on the device of a failed one, never on another device.

    Raises:
        StartupError: If the device cannot be used.
    """
    return open_session(bundle, settings, failed.device)


def open_session(bundle: Bundle, settings: Settings, device: str = DeviceChoice.CPU) -> Session:
    """Open a bundle on a device, warm it up, and run its self-test.

    Args:
        bundle: The network.
        settings: Batch sizes, memory limits and precision.
        device: ``cpu``, or ``cuda:`` and the number of a GPU.

    Raises:
        StartupError: If the device cannot be used.
    """
    try:
        if device == DeviceChoice.CPU:
            session = _cpu_session(bundle, settings)
        else:
            session = _cuda_session(bundle, settings, int(device.partition(":")[2]))
        session.check_interface(bundle)
        session.warm_up()
        session.self_test(bundle)
        session.shrink_arena()
    except StartupError:
        raise
    except Exception as error:  # onnxruntime raises RuntimeError and several classes without a common base
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise StartupError(
            f"{bundle.card.name} does not run ({reason}); on a GPU check the driver with nvidia-smi, or set "
            "WHOLETRACK_DEVICE=cpu"
        ) from error
    return session


def _cpu_session(bundle: Bundle, settings: Settings) -> Session:
    # Each worker runs a batch in its own thread. Threads that share one batch would wait for each other at every layer
    # whenever a decoder takes one of their processors.
    options = _session_options()
    onnx, precision = bundle.onnx, Precision.FLOAT32
    if settings.cpu_precision is Precision.INT8 and bundle.int8 is not None:
        onnx, precision = bundle.int8, Precision.INT8
    session = ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    return Session(session, bundle, device=DeviceChoice.CPU, batch_sizes=[settings.cpu_batch], precision=precision)


def _cuda_session(bundle: Bundle, settings: Settings, number: int) -> Session:
    if _CUDA_PROVIDER not in ort.get_available_providers():
        raise StartupError(
            "this onnxruntime does not support CUDA: install the extra 'gpu' in place of 'cpu' (never both), or set "
            "WHOLETRACK_DEVICE=cpu"
        )
    try:
        read_memory = memory_reader()
    except OSError as error:
        raise StartupError(
            f"no NVIDIA driver was found ({DRIVER} is missing): install it, give the container access to the GPU, or "
            "set WHOLETRACK_DEVICE=cpu"
        ) from error
    # Prefer CUDA and cuDNN from the installed Python packages to those of the system.
    ort.preload_dlls(directory="")
    options = _session_options()
    # Without this, nodes that CUDA does not support run on the CPU without any warning.
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    provider = {
        "device_id": number,
        "gpu_mem_limit": settings.cuda_memory_mb << 20,
        "arena_extend_strategy": "kSameAsRequested",
        # EXHAUSTIVE takes seconds and gigabytes at each new shape, and DEFAULT picks slow algorithms.
        "cudnn_conv_algo_search": "HEURISTIC",
        "do_copy_in_default_stream": True,
        # TF32 would change probabilities by 1e-3 against the CPU.
        "use_tf32": False,
    }
    session = ort.InferenceSession(bundle.onnx, options, providers=[(_CUDA_PROVIDER, provider)])
    session.disable_fallback()
    if session.get_providers()[0] != _CUDA_PROVIDER:
        raise StartupError(
            "onnxruntime fell back from CUDA to the CPU: its CUDA or cuDNN libraries could not be loaded; install the "
            "extra 'gpu' with its CUDA packages, or set WHOLETRACK_DEVICE=cpu"
        )
    sizes = [1 << exponent for exponent in range(int(math.log2(settings.cuda_batch)) + 1)]
    return Session(session, bundle, device=f"{DeviceChoice.CUDA}:{number}", batch_sizes=sizes, read_memory=read_memory)


def _session_options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # Spinning would keep cores busy that decoding needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: NDArray[np.float32] = powers / powers.sum(axis=-1, keepdims=True)
    return probabilities
