"""An onnxruntime session on a device that has passed a self-test: it reproduced the bundle's golden outputs."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidGraph, InvalidProtobuf

from wholetrack.contracts import Rows, Windows, separate_windows
from wholetrack.errors import StartupError, UnavailableModelError
from wholetrack.inference.bundle import MODEL_FILE, Bundle
from wholetrack.inference.cuda import CUDA_PROVIDER, load_cuda
from wholetrack.inference.gpu_memory import GpuMemory, memory_reader
from wholetrack.inference.network_outputs import ELEMENTS, check_golden_outputs, interpreted, wrong_outputs
from wholetrack.inference.strips import SLICES, StripFeeds, overlapping
from wholetrack.settings import DeviceChoice, Precision, Settings

_log = logging.getLogger(__name__)

# Severities of onnxruntime's own log, which goes to standard error.
_ERROR, _FATAL = 3, 4
# What the allocators of onnxruntime, CUDA, cuDNN and cuBLAS say.
_MEMORY_ERROR = re.compile(r"allocat|out of memory|ALLOC_FAILED|bad_alloc", re.IGNORECASE)

# Both ways of computing a window round differently.
_STRIP_TOLERANCE = 1e-5

# The log that belongs to no session. Version 1.31 warns there about every CUDA session that it finds no "plugin" for,
# although none is needed. Libraries that cannot be loaded are reported as errors, nowhere else, and remain.
ort.set_default_logger_severity(_ERROR)


class Session:
    """A network on a device. Any thread may run it.

    Attributes:
        device: ``cpu``, or ``cuda:`` and the number of a GPU.
        precision: Number format of the network.
        max_batch: Largest number of windows that :meth:`run` accepts.
        min_share: Number of consecutive windows of a track that cost less together than apart.
        window_shapes: Shape of one window of each input, ``(frames, n_mels)``.
        output_shapes: Shape of each output for one window, in the order of ``card.outputs.names``.
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
        strips: StripFeeds | None = None,
        read_memory: Callable[[], GpuMemory | None] = lambda: None,
    ) -> None:
        self._session = session
        self._input_names = [entry.name for entry in bundle.card.inputs]
        self._outputs = bundle.card.outputs
        self._output_names = bundle.card.outputs.names
        self._padded = device != DeviceChoice.CPU
        self._batch_sizes = batch_sizes
        self._read_memory = read_memory
        self.device = device
        self.precision: str = precision
        self._strips = strips
        self.max_batch = batch_sizes[-1] * (SLICES if strips else 1)
        self.min_share = batch_sizes[-1] if strips else 1
        self.window_shapes: tuple[tuple[int, ...], ...] = tuple(entry.shape[1:] for entry in bundle.card.inputs)
        self.output_shapes = bundle.card.output_shapes
        self.memory: GpuMemory | None = None

    def run(self, windows: Windows) -> Rows:
        """Classify windows.

        Args:
            windows: Normalised windows, at most ``max_batch``.

        Returns:
            Probabilities of the genres, of the tags if the network yields them, and embeddings of unit length if it
            yields one, ``[n, *shape]`` for each of ``output_shapes``.
        """
        n_windows = len(windows)
        if self._padded:
            # cuDNN searches for algorithms at every new shape. Only sizes from the warm-up ever run on a GPU.
            size = next(size for size in self._batch_sizes if size >= n_windows)
            windows = Rows.joined([separate_windows(windows), Rows.zeros(size - n_windows, self.window_shapes)])
        runs = [self._session.run(self._output_names, feed) for feed in self._feeds(windows)]
        outputs = runs[0] if len(runs) == 1 else [np.concatenate(parts) for parts in zip(*runs, strict=True)]
        self.memory = self._read_memory()
        return interpreted([np.asarray(output)[:n_windows] for output in outputs], self._outputs)

    def _feeds(self, windows: Windows) -> Iterable[dict[str, NDArray[np.generic]]]:
        """Return the inputs of each run of the network: a single one, unless they are strips."""
        if self._strips:
            return self._strips.of(windows)
        return [dict(zip(self._input_names, separate_windows(windows).arrays, strict=True))]

    def check_interface(self, bundle: Bundle) -> None:
        """Check that the inputs and outputs of the network are those of ``model.json``.

        Raises:
            StartupError: If a name or a shape differs.
        """
        card = bundle.card
        inputs = dict(zip(self._input_names, self.window_shapes, strict=True))
        file = f"{card.name}: {card.strips.file if self._strips and card.strips else MODEL_FILE}"
        _check_nodes(
            file,
            "input",
            {node.name: node.shape[1:] for node in self._session.get_inputs()},
            self._strips.shapes(self.window_shapes[0][-1]) if self._strips else inputs,
        )
        _check_nodes(
            file,
            "output",
            {node.name: node.shape[1:] for node in self._session.get_outputs()},
            dict(zip(card.outputs.names, card.output_shapes, strict=True)),
        )

    def warm_up(self) -> None:
        """Run every batch size once, so that no request waits for the slow first run at its size.

        The largest comes first. onnxruntime reserves memory in regions of the size that a run asks for: a smaller
        batch can use part of the region of a larger one, but a larger batch cannot use several smaller regions.
        """
        for size in sorted(self._batch_sizes, reverse=True):
            self.run(Rows.zeros(size, self.window_shapes))

    def self_test(self, bundle: Bundle) -> None:
        """Compare the outputs for the bundle's golden windows on this device.

        Raises:
            UnavailableModelError: If an output differs by more than the bundle's tolerance.
        """
        tolerance = bundle.card.golden.tolerance
        if self.precision == Precision.INT8 and bundle.card.int8:
            tolerance = bundle.card.int8.tolerance
        check_golden_outputs(self, bundle, tolerance=tolerance)
        if self._strips:
            self._check_strips(bundle)

    def _check_strips(self, bundle: Bundle) -> None:
        """Check that a window of a strip depends on no other frames.

        Raises:
            UnavailableModelError: If an output differs from that of the same window by itself.
        """
        strip = overlapping(bundle.golden.windows[: self.max_batch // SLICES])[: self.max_batch]
        together, apart = self.run(strip), self.run(separate_windows(strip))
        for kind, output, expected in zip(self._outputs.kinds, together.arrays, apart.arrays, strict=True):
            worst = float(np.abs(output - expected).max())
            if not worst <= _STRIP_TOLERANCE:
                raise wrong_outputs(
                    bundle,
                    self.device,
                    f"gives wrong outputs for strips: a {ELEMENTS[kind]} of a window depends on frames outside it, "
                    f"by {worst:.3g}",
                )

    def shrink_arena(self) -> None:
        """Return the working memory of large batches to the system (CPU only), because most models are mostly idle."""
        if not self._padded:
            options = ort.RunOptions()
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
            for feed in self._feeds(Rows.zeros(1, self.window_shapes)):
                self._session.run(self._output_names, feed, options)


def open_session(
    bundle: Bundle, settings: Settings, device: str = DeviceChoice.CPU, *, memory_limit_bytes: int | None = None
) -> Session:
    """Open a bundle on a device, warm it up, and run its self-test.

    If a network runs with one window but not with the configured batch, the batch is halved until it does.

    Args:
        bundle: The network.
        settings: Batch sizes and precision.
        device: ``cpu``, or ``cuda:`` and the number of a GPU.
        memory_limit_bytes: Memory that the session may use on a GPU; None for no limit.

    Raises:
        UnavailableModelError: If the device cannot run the network, or runs it with wrong outputs.
        StartupError: If CUDA cannot be used, or the network contradicts the bundle.
    """
    configured = settings.cpu_batch if device == DeviceChoice.CPU else settings.cuda_batch
    max_batch, problem = configured, ""
    while True:
        session = _open_with_one_window(bundle, settings, device, max_batch, memory_limit_bytes)
        try:
            session.warm_up()
            break
        except Exception as error:  # onnxruntime raises several classes without a common base
            if max_batch == 1:
                raise _unavailable(bundle, device, f"the network fails on {device}", error) from error
            max_batch, problem = max_batch // 2, _first_line(error)
        # The memory of a failed run remains in the arena of its session. Release it before the next one is opened.
        del session
    try:
        session.self_test(bundle)
        session.shrink_arena()
    except StartupError:
        raise
    except Exception as error:
        raise _unavailable(bundle, device, f"the network fails on {device} with its golden windows", error) from error
    if problem:
        _log.warning(
            "model %s on %s: at most %d windows per batch instead of %d, because the warm-up of more failed: %s",
            bundle.card.name,
            device,
            session.max_batch,
            configured,
            problem,
        )
    return session


def precision_on(device: str, bundle: Bundle, settings: Settings) -> Precision:
    """Return the number format in which a bundle runs on a device."""
    if device == DeviceChoice.CPU and settings.cpu_precision is Precision.INT8 and bundle.int8 is not None:
        return Precision.INT8
    return Precision.FLOAT32


def _open_with_one_window(
    bundle: Bundle, settings: Settings, device: str, max_batch: int, memory_limit_bytes: int | None
) -> Session:
    """Open a session, check its interface, and classify one window."""
    try:
        if device == DeviceChoice.CPU:
            session = _cpu_session(bundle, settings, max_batch)
        else:
            session = _cuda_session(bundle, int(device.partition(":")[2]), max_batch, memory_limit_bytes)
    except StartupError:
        raise
    except Exception as error:
        # onnxruntime raises some errors of invalid networks as its most general class.
        if isinstance(error, InvalidGraph | InvalidProtobuf) or "invalid model" in str(error):
            raise StartupError(
                f"{bundle.card.name}: model.onnx is not a valid network ({_first_line(error)})"
            ) from error
        raise _unavailable(bundle, device, f"onnxruntime cannot open the network on {device}", error) from error
    session.check_interface(bundle)
    try:
        session.run(Rows.zeros(1, session.window_shapes))
    except Exception as error:
        raise _unavailable(bundle, device, f"the network fails on {device} even with one window", error) from error
    return session


def _unavailable(bundle: Bundle, device: str, reason: str, error: Exception) -> UnavailableModelError:
    is_memory_error, advice = _MEMORY_ERROR.search(str(error)), ""
    if is_memory_error:
        reason += " (not enough memory)"
    if device != DeviceChoice.CPU:
        check = "its free memory and WHOLETRACK_CUDA_MEMORY_MB" if is_memory_error else "the driver with nvidia-smi"
        advice = f"; on a GPU check {check}, or set WHOLETRACK_DEVICE=cpu"
    return UnavailableModelError(
        f"{bundle.card.name} does not run on {device} ({_first_line(error)}){advice}", device=device, reason=reason
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _cpu_session(bundle: Bundle, settings: Settings, max_batch: int) -> Session:
    # Each worker runs a batch in its own thread. Threads that share one batch would wait for each other at every layer
    # whenever a decoder takes one of their processors.
    precision = precision_on(DeviceChoice.CPU, bundle, settings)
    options, feeds = _session_options(), None
    onnx = bundle.int8 if precision is Precision.INT8 else bundle.onnx
    if precision is Precision.FLOAT32 and bundle.strips is not None and bundle.card.strips is not None:
        onnx = bundle.strips
        feeds = StripFeeds(bundle.card.strips, max_frames=max_batch * bundle.card.single_input.frames)
        # A pattern would be kept for every length of a strip.
        options.enable_mem_pattern = False
    session = ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    return Session(session, bundle, device=DeviceChoice.CPU, batch_sizes=[max_batch], precision=precision, strips=feeds)


def _cuda_session(bundle: Bundle, number: int, max_batch: int, memory_limit_bytes: int | None) -> Session:
    load_cuda()
    options = _session_options()
    # Without this, nodes that CUDA does not support run on the CPU without any warning.
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    provider = {
        "device_id": number,
        # The smallest chunk that fits, as a larger one would count against the limit without being used.
        "arena_extend_strategy": "kSameAsRequested",
        # EXHAUSTIVE takes seconds and gigabytes at each new shape, and DEFAULT picks slow algorithms.
        "cudnn_conv_algo_search": "HEURISTIC",
        "do_copy_in_default_stream": True,
        # TF32 would change probabilities by 1e-3 against the CPU.
        "use_tf32": False,
    }
    if memory_limit_bytes is not None:
        provider["gpu_mem_limit"] = memory_limit_bytes
    session = ort.InferenceSession(bundle.onnx, options, providers=[(CUDA_PROVIDER, provider)])
    session.disable_fallback()
    device = f"{DeviceChoice.CUDA}:{number}"
    if session.get_providers()[0] != CUDA_PROVIDER:
        reason = "onnxruntime fell back from CUDA to the CPU: its CUDA or cuDNN libraries could not be loaded"
        raise UnavailableModelError(
            f"{reason}; install the extra 'gpu' with its CUDA packages, or set WHOLETRACK_DEVICE=cpu",
            device=device,
            reason=reason,
        )
    sizes = [1 << exponent for exponent in range(max_batch.bit_length())]
    return Session(session, bundle, device=device, batch_sizes=sizes, read_memory=memory_reader())


def _session_options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # Spinning would keep cores busy that decoding needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # An error of a session is raised as an exception as well, which the service logs or reports. onnxruntime would only
    # print it a second time, in colour and over several lines.
    options.log_severity_level = _FATAL
    return options


def _check_nodes(file: str, kind: str, found: dict[str, list[int | str]], expected: dict[str, tuple[int, ...]]) -> None:
    """Compare the inputs or the outputs of a network with those that ``model.json`` describes."""
    for name, shape in found.items():
        if name not in expected:
            raise StartupError(
                f"{file} has the {kind} {name!r} that model.json does not describe; model.json says "
                f"{sorted(expected)}: describe it there, or export the network without it"
            )
        if shape != list(expected[name]):
            raise StartupError(
                f"{file} has the {kind} {name!r} with the shape {shape}, model.json says "
                f"{list(expected[name])}: correct the one that is wrong"
            )
    if missing := sorted(expected.keys() - found.keys()):
        raise StartupError(
            f"{file} has no {kind} {' and no '.join(map(repr, missing))}, as model.json says; it has {sorted(found)}"
        )
